"""Keeps token ids out of memory: a stream that is written once and read in blocks or mapped."""

from __future__ import annotations

import mmap
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import InputError

Ids = NDArray[np.integer[Any]]  # 1-D, any integer dtype

MEMORY_BYTES = 64 << 20
BLOCK_TOKENS = 1 << 19


def token_dtype(size: int) -> np.dtype[Any]:
    """The smallest of uint8, uint16 and int32 that holds the ids 0 to ``size - 1``."""
    return np.dtype(np.uint8 if size <= 1 << 8 else np.uint16 if size <= 1 << 16 else np.int32)


class Spool:
    """A stream of ids, in memory up to ``MEMORY_BYTES``, then in an anonymous temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES)  # noqa: SIM115  closed by the next line
        weakref.finalize(self, self._file.close)
        self._blocks: list[tuple[np.dtype[Any], int]] = []
        self._pending: list[Ids] = []
        self._pending_tokens = 0

    def append(self, ids: Ids, size: int) -> None:
        """Write ids, all below ``size``, at the end."""
        for first in range(0, ids.size, BLOCK_TOKENS):  # a line may be long
            part = ids[first : first + BLOCK_TOKENS]
            self._pending.append(part.astype(token_dtype(size), copy=False))
            self._pending_tokens += part.size
            if self._pending_tokens >= BLOCK_TOKENS:
                self._flush()

    def blocks(self) -> Iterator[Ids]:
        """All ids in order, in blocks of about ``BLOCK_TOKENS``, each of its own dtype. Not writable."""
        self._flush()
        offset_bytes = 0
        for dtype, count in self._blocks:
            self._file.seek(offset_bytes)
            offset_bytes += count * dtype.itemsize
            yield np.frombuffer(self._file.read(count * dtype.itemsize), dtype=dtype)

    def array(self, size: int) -> Ids:
        """All ids as one array, a ``np.memmap`` if they are in a file; each ``append`` had this ``size``.

        The spool is of no further use: the array owns what it held.
        """
        self._flush()
        dtype = token_dtype(size)
        count = sum(count for _, count in self._blocks)
        if count * dtype.itemsize > MEMORY_BYTES:
            mapped: Ids = np.memmap(self._file, dtype=dtype, mode="r", shape=(count,))
            return mapped
        self._file.seek(0)
        return np.frombuffer(self._file.read(), dtype=dtype)

    def _flush(self) -> None:
        """Gather what was appended into one block, so that a reader's work for each block is small."""
        if not self._pending:
            return
        block = np.concatenate(self._pending)
        self._pending, self._pending_tokens = [], 0
        self._blocks.append((block.dtype, block.size))
        try:
            self._file.seek(0, 2)
            self._file.write(block.data.cast("B"))
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"cannot write to the temporary folder {tempfile.gettempdir()} ({error.strerror}); "
                "free some space or set TMPDIR"
            ) from None


def array_blocks(tokens: Ids) -> Iterator[Ids]:
    """An array in blocks of ``BLOCK_TOKENS``; of a mapped one, no more than a block stays in memory."""
    for first in range(0, tokens.size, BLOCK_TOKENS):
        yield np.asarray(tokens[first : first + BLOCK_TOKENS])
        release_pages(tokens)


def release_pages(tokens: Ids) -> None:
    """Let go of the memory through which a mapped file was read; it stays readable. Nothing for other arrays.

    The pages count as the process's own until the system wants them back, which looks like, and in a container
    with a limit is, a need for as much memory as the corpus is large.
    """
    mapping = getattr(tokens, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
