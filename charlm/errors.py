"""What can go wrong, as a small tree: each exception knows its exit code.

A message is one line: what is wrong, where, and what to do about it.
"""

from __future__ import annotations


class CharlmError(Exception):
    """Any failure that a user can be told about in one line."""

    exit_code = 1


class InputError(CharlmError):
    """The data is at fault: a text, a prompt, a token file."""


class CheckpointError(CharlmError):
    """A model file is missing, damaged, foreign, or from a newer version."""


class OutputError(CharlmError):
    """A file, or standard output, cannot be written."""


class UnwritableError(OutputError):
    """A file cannot be written.

    Attributes:
        path: the file, as the user named it.
        what: what is wrong, without a remedy.
    """

    def __init__(self, path: str, what: str, remedy: str) -> None:
        super().__init__(f"{path or repr('')}: {what}; {remedy}")
        self.path, self.what = path, what


class TrainingError(CharlmError):
    """Training cannot go on; the best model so far is in place."""


class UsageError(CharlmError):
    """The request is at fault: options that contradict each other or are out of range."""

    exit_code = 2
