"""What the models of the tasks are called, and which commands take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from charlm.errors import CheckpointError

NOUNS = {"lm": "a language model", "classify": "a classifier", "tag": "a tagger", "transduce": "a transducer"}
REMEDIES = {"lm": "use sample or score", "classify": "use predict", "tag": "use predict", "transduce": "use predict"}


def task_of(header: dict[str, Any], path: str | Path) -> str:
    """The task of a checkpoint's model; files of before there were others are of language models.

    Raises:
        CheckpointError: this version knows no such task.
    """
    task = header.get("task", "lm")
    if not isinstance(task, str) or task not in NOUNS:
        raise CheckpointError(f"{path}: its task {task!r:.40} is not one that this charlm knows; update charlm")
    return task


def require_language_model(header: dict[str, Any], path: str | Path) -> None:
    """CheckpointError if this is another model; the message says which command takes it."""
    task = task_of(header, path)
    if task != "lm":
        raise CheckpointError(f"{path}: this is {NOUNS[task]}: {REMEDIES[task]}")
