"""What a training is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from charlm.errors import UsageError
from charlm.training.options import TrainingOptions
from charlm.workflows.tokenize import TextOptions

Chosen = dict[str, tuple[Any, str]]  # option -> value and reason

OPTION_NAMES = {"time_seconds": "time"}
OF_A_MODEL = frozenset({"valid", "valid_frac", *(f.name for f in fields(TrainingOptions))})  # what any model can take


@dataclass(frozen=True)
class TrainRequest:
    """What the user asked for; None for what was not given. Field names are those of the options."""

    corpus: Sequence[str]
    output: str
    text: TextOptions = field(default_factory=TextOptions)
    task: str | None = None
    condition: str | None = None
    target_level: str | None = None
    token_column: int | None = None
    tag_column: int | None = None
    valid: Sequence[str] = ()
    valid_frac: float | None = None
    cell: str | None = None
    activation: str | None = None
    hidden_size: int | None = None
    num_layers: int | None = None
    embedding_size: int | None = None
    bidirectional: bool | None = None
    char_features: bool | None = None
    attention: bool | None = None
    tie_weights: bool | None = None
    softmax: str | None = None
    bptt: int | None = None
    batch_size: int | None = None
    optimizer: str | None = None
    lr: float | None = None
    schedule: str | None = None
    warmup: int | None = None
    clip: float | None = None
    clip_mode: str | None = None
    dropout: float | None = None
    variational: bool | None = None
    weight_decay: float | None = None
    initial_state: str | None = None
    epochs: int | None = None
    time_seconds: float | None = None
    patience: int | None = None
    seed: int | None = None
    threads: int | None = None
    resume: bool = False
    init_from: str | None = None
    keep: int | None = None
    log: str | None = None
    command: str = ""


def option_name(field_name: str) -> str:
    """A field of the request as it is spelt on the command line."""
    return f"--{OPTION_NAMES.get(field_name, field_name).replace('_', '-')}"


def resume_path(output: str) -> str:
    """Where what resuming needs lies: MODEL.npz -> MODEL.resume.npz; NAME -> NAME.resume."""
    return beside(output, "resume")


def beside(output: str, what: str) -> str:
    """The path of a file that belongs to a model; different for different models."""
    end = ".npz" if output.endswith(".npz") else ""
    return f"{output.removesuffix(end)}.{what}{end}"


def changed(name: str, before: Any, now: Any) -> UsageError:
    """On resuming, an option differs from what the training began with."""
    option, began = f"{option_name(name)} {now}", "without it" if before is None else f"with {before}"
    if isinstance(now, bool):
        option = option_name(name) if now else option_name(f"no_{name}")
        began = "without it" if now else f"with {option_name(name)}"
    anew = "--init-from and another -o" if name in OF_A_MODEL else "another -o"
    return UsageError(f"{option}: this training began {began}; resume without the option, or begin anew with {anew}")


def refuse_others(given: Sequence[str], reason: str) -> None:
    """UsageError if options were given that there is a reason against."""
    if given:
        options = ", ".join(name if name.startswith("--") else option_name(name) for name in given)
        raise UsageError(f"{reason}: leave out {options}")
