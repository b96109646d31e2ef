"""What the loop trains: a model, its examples in order, and how it is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from charlm.engine.threads import Team
from charlm.models.parameters import Array, Parameters

DROPOUT_DRAWS, STATE_DRAWS, BEGIN_DRAWS = 1, 2, 3  # streams of random numbers, each seeded by (seed, step, stream)

Draws = Callable[[int], np.random.Generator]  # the generator of a stream, for the step that is being made


class Example(Protocol):
    """What one step learns from."""

    @property
    def predicted(self) -> int:
        """How many predictions are judged: tokens, tags, labels."""


class Model(Protocol):
    """What the loop itself does with a model: clip its gradients, change its parameters."""

    parameters: Parameters
    gradients: Parameters
    team: Team

    def changed(self) -> None:
        """The weights have been changed."""


class TrainingTask(Protocol):
    """A model with its examples.

    Attributes:
        carried: the state that goes on from an example to the next within an epoch, changed in place; of no numbers
            if there is none. It is saved with the training's state.
        steps_per_epoch: examples in each epoch, the same in all.
        guess_nats: the loss per prediction of one who knows nothing.
        has_validation: whether there is anything to validate on.
    """

    carried: Array
    steps_per_epoch: int
    guess_nats: float
    has_validation: bool

    @property
    def model(self) -> Model:
        """What is trained."""

    def examples(self, epoch: int, first: int) -> Iterator[Any]:
        """The examples of an epoch from number ``first`` on, the same whichever is the first."""

    def loss_and_gradients(self, example: Any, number: int, draws: Draws) -> float:
        """One pass; the mean loss's gradients are left in the model.

        Args:
            example: one of `examples`.
            number: its number in its epoch.
            draws: whatever is drawn at random.

        Returns:
            loss_nats: summed over its predictions.
        """

    def validation(self) -> tuple[float, float | None]:
        """What was held out: the mean loss per prediction (nats), and how much of it comes out wrong.

        The latter is 0 to 1, or None if the loss alone is to judge.
        """
