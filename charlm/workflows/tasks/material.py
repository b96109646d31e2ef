"""What a training stands on: texts that were read, the model that suits them, and examples of them for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from charlm.engine import cells
from charlm.errors import UsageError
from charlm.training.options import TrainingOptions
from charlm.training.task import TrainingTask
from charlm.workflows.tasks.reading import Reading, files_read, fingerprint
from charlm.workflows.train_request import Chosen, option_name

COMMON_MODEL_OPTIONS = ("cell", "activation", "hidden_size", "num_layers", "embedding_size")
# Options of which each is for some tasks alone; None where it was not given.
SPECIAL_OPTIONS = (
    "condition", "target_level", "token_column", "tag_column", "bidirectional", "char_features", "attention",
    "tie_weights", "softmax", "bptt", "initial_state",
)  # fmt: skip


@dataclass(frozen=True)
class Course:
    """What an epoch comes to: ``rows`` side by side, as many as there are, in so many steps."""

    rows: int
    steps_per_epoch: int


class Material(ABC):
    """The texts of one training, of one task.

    Attributes:
        name: as ``--task`` has it.
        unit: what is predicted: a char, a word, a byte, a label, a tag.
        counted: what of it there are many of.
        own_options: those of `SPECIAL_OPTIONS` that it takes.
        model_options: those that decide the model.
        train, valid: the texts; ``valid`` is None if none was held out.
    """

    name: ClassVar[str]
    own_options: ClassVar[tuple[str, ...]]
    model_options: ClassVar[tuple[str, ...]]
    unit: str
    counted: ClassVar[str] = "tokens"
    train: Any
    valid: Any

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        for name in SPECIAL_OPTIONS:
            given = getattr(reading.request, name)
            # A flag that says no asks for nothing.
            if given not in (None, False) and name not in self.own_options:
                raise UsageError(f"{option_name(name)} has no meaning for --task {self.name}; {self.why_not(name)}")
        self.read()

    def next_command(self, model: str) -> str:
        """What to do with a model, as a shell has it."""
        return f"predict {model}"

    def why_not(self, name: str) -> str:
        """Why an option has no meaning here, or what to do."""
        return "leave it out"

    @property
    def names(self) -> list[str]:
        """The inputs, as the user named them."""
        names: list[str] = self.train.names
        return names

    @abstractmethod
    def read(self) -> None:
        """Read ``train`` and ``valid``."""

    @abstractmethod
    def suggestions(self) -> Chosen:
        """Sizes and rates that suit the text."""

    @abstractmethod
    def config(self, values: Mapping[str, Any]) -> Any:
        """The model's configuration from the values of ``model_options``; UsageError if they contradict each other."""

    @abstractmethod
    def course(self, options: TrainingOptions) -> Course:
        """What an epoch comes to."""

    @abstractmethod
    def task(self, model: Any, options: TrainingOptions) -> TrainingTask:
        """What the loop trains."""

    @abstractmethod
    def described(self) -> list[str]:
        """What there is, a line or more."""

    @abstractmethod
    def glimpse(self, model: Any, seed: int) -> str:
        """What the model that was validated can do: a little text, or figures."""

    @abstractmethod
    def excerpt(self, example: Any) -> str:
        """Where an example comes from, for a message."""

    @abstractmethod
    def own_header(self) -> dict[str, Any]:
        """Its part of a checkpoint's header: vocabularies and the like."""

    def header(self) -> dict[str, Any]:
        """What a checkpoint says of task and text."""
        return {
            "task": self.name,
            **self.own_header(),
            "corpus": {
                "names": self.names,
                **fingerprint(self.train, self.valid),
                **files_read(self.train, self.valid),
                **asdict(self.train.counts),
            },
            "text": self.reading.text_record,
        }


def check_activation(values: Mapping[str, Any]) -> None:
    """UsageError if the cell has no such activation."""
    cell = cells.find(values["cell"])
    if values["activation"] not in cell.activations:
        raise UsageError(
            f"--activation {values['activation']}: --cell {values['cell']} has {', '.join(cell.activations)} only"
        )
