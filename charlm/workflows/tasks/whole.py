"""Materials of networks that read whole sequences: the best is the one that gets the least of the rest wrong."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from charlm.training.collections import Collection
from charlm.training.options import TrainingOptions
from charlm.training.sequence_task import SequenceTask, buckets
from charlm.workflows.tasks.material import Course, Material


class WholeMaterial(Material):
    """See `Material`.

    Attributes:
        kind: of the training task.
        told: how the model that was validated last did.
    """

    kind: ClassVar[type[SequenceTask[Any]]]
    told: str = ""

    @property
    @abstractmethod
    def choices(self) -> int:
        """Of which one is right, for each prediction."""

    @abstractmethod
    def collection(self, corpus: Any, config: Any) -> Collection[Any]:
        """One of the texts as examples for a model of this configuration; None for one that is not known yet."""

    @abstractmethod
    def error(self, model: Any, found: list[Any]) -> float:
        """How much of what was held out a model gets wrong, 0 to 1; leaves that in words in ``told``.

        Args:
            found: what `SequenceTask` has found for each of the examples.
        """

    def course(self, options: TrainingOptions) -> Course:
        """See `Material`."""
        collection = self.collection(self.train, None)
        return Course(min(options.batch_size, collection.lengths.size), buckets(collection, options).steps_per_epoch)

    def task(self, model: Any, options: TrainingOptions) -> SequenceTask[Any]:
        """See `Material`."""
        train, valid = (
            None if corpus is None else self.collection(corpus, model.config) for corpus in (self.train, self.valid)
        )
        assert train is not None
        return self.kind(model, train, options, valid, self.choices, self.error)

    def glimpse(self, model: Any, seed: int) -> str:
        """See `Material`."""
        return self.told
