"""Which inputs a corpus was made of: the name, the length and the SHA-256 of each, and the SHA-256 of all in order.

What is hashed are the bytes of the text as they were read: a ``.gz`` unpacked, nothing else changed. Of a file that is
not packed it is what ``sha256sum`` prints. A token file is hashed as it lies on disk; its corpus is known by the text
that it was made of.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from charlm.text.readers import display_name


@dataclass(frozen=True)
class Input:
    """One file, or standard input: ``size_bytes`` and ``sha256`` are of what was read of it."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Inputs:
    """Some inputs in their order.

    Attributes:
        files: of each, what it is known by.
        sha256: of the text, the inputs' bytes in order (unpacked), in hexadecimal. Where the text was cut into files
            makes no difference to it.
    """

    files: tuple[Input, ...]
    sha256: str


class OfInputs:
    """Whatever was made of some inputs, and is known by them."""

    inputs: Inputs

    @property
    def sha256(self) -> str:
        """Of the text, see `Inputs`."""
        return self.inputs.sha256

    @property
    def names(self) -> list[str]:
        """The inputs, as the user named them."""
        return [file.name for file in self.inputs.files]


class Witness:
    """Hashes inputs while they are read, one after another."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self._own: Any = None  # of a second and later input; the first is the whole until then
        self._size_bytes = 0
        self._files: list[Input] = []

    def read(self, block: bytes) -> None:
        """The next bytes of the input."""
        self._whole.update(block)
        if self._own is not None:
            self._own.update(block)
        self._size_bytes += len(block)

    def end(self, path: str) -> None:
        """The input of this path has been read."""
        own = self._whole if self._own is None else self._own
        self._files.append(Input(display_name(path), self._size_bytes, own.hexdigest()))
        self._own, self._size_bytes = hashlib.sha256(), 0

    @property
    def inputs(self) -> Inputs:
        """What was read until now."""
        return Inputs(tuple(self._files), self._whole.hexdigest())
