"""Opens texts: a path, ``-`` for standard input, ``.gz`` by name; streams them in blocks of decoded text.

A text is strict UTF-8: a byte that is not is an error with its place, never a silent replacement.
"""

from __future__ import annotations

import gzip
import math
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO, Literal, cast

from charlm.errors import InputError

STDIN = "-"
BLOCK_BYTES = 1 << 18

# A packed file that unpacks to more than this many bytes, and to so many times its size, is no text: text packs 3 to 10
# times, logs up to 50 times, what is made to fill a disk (or the memory, as a single line) up to 1032 times.
LARGE_BYTES, MOST_TIMES = 1 << 25, 100

# Longest first: UTF-32's mark begins with UTF-16's.
FOREIGN_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
GZIP_MAGIC = b"\x1f\x8b"  # no UTF-8 begins so
TOKENS_MAGIC = b"\x93charlm-tokens\n"  # of a token file; nor so
ZIP_MAGIC = b"PK\x03\x04"  # of a model
BYTE_ORDER_MARK = "\ufeff"
OR_BYTES = ", or use --level byte"


def display_name(path: str) -> str:
    """What a message calls an input."""
    return "standard input" if path == STDIN else path or "''"


def read_blocks(
    path: str,
    *,
    encoding: Literal["utf-8", "latin-1"] = "utf-8",
    whole_lines: bool = True,
    observe: Callable[[bytes], object] | None = None,
    any_level: bool = False,
) -> Iterator[str]:
    r"""The text of one input, in order, in blocks of a megabyte or less (a longer line is one block).

    UTF-8 loses its byte order mark, and CR LF and a lone CR become ``\n``. Latin-1 stands for bytes: nothing is
    changed.

    Args:
        path: a file's path, ``-`` for standard input; a name that ends in ``.gz`` is unpacked.
        encoding: "utf-8" or "latin-1".
        whole_lines: each block but the last ends at a line's end. Always so for UTF-8.
        observe: called with all bytes, unpacked but not otherwise changed, in order; a hash's ``update``, say.
        any_level: whether ``--level byte`` is a way out of what is not UTF-8.

    Raises:
        InputError: missing, not readable, damaged, packed as no text is, or not UTF-8 text; one line that says where
            and what to do. The whole lines before the fault have been given.
    """
    raw = _raw_blocks(path)
    if observe is not None:
        raw = _observed(raw, observe)
    if encoding == "utf-8":
        yield from _decode_utf8(display_name(path), _lines(raw, b"\n", b"\r"), any_level)
    else:
        for block in _lines(raw, b"\n") if whole_lines else raw:
            yield block.decode("latin-1")


def read_lines(
    path: str,
    *,
    encoding: Literal["utf-8", "latin-1"] = "utf-8",
    observe: Callable[[bytes], object] | None = None,
    any_level: bool = False,
) -> Iterator[str]:
    """The lines of one input without their ends, empty ones too. Arguments and errors as for ``read_blocks``."""
    for block in read_blocks(path, encoding=encoding, observe=observe, any_level=any_level):
        lines = block.split("\n")
        if not lines[-1]:  # the block ends with a line's end, after which no line begins
            lines.pop()
        yield from lines


def _open(path: str) -> AbstractContextManager[BinaryIO]:
    if path == STDIN:
        if sys.stdin is None:
            raise InputError("standard input is closed; name a file instead of -")
        return nullcontext(sys.stdin.buffer)  # left open: it is not ours
    if path.endswith(".gz"):
        return cast("AbstractContextManager[BinaryIO]", gzip.open(path, "rb"))
    return open(path, "rb")


def _most_bytes(path: str) -> float:
    """To how many bytes a file may be unpacked."""
    if not path.endswith(".gz") or not os.path.isfile(path):  # of a pipe nobody knows the size
        return math.inf
    return max(LARGE_BYTES, MOST_TIMES * os.path.getsize(path))


def _raw_blocks(path: str) -> Iterator[bytes]:
    """The bytes of one input; what the operating system or gzip says against it in one line."""
    name = display_name(path)
    try:
        with _open(path) as stream:
            # Take what is there: who sends line after line through a pipe wants each to be worked on, and where
            # gzip data is cut short, read would drop all that it has unpacked of a block.
            read = getattr(stream, "read1", stream.read)
            limit, unpacked = _most_bytes(path), 0
            while block := read(BLOCK_BYTES):
                unpacked += len(block)
                if unpacked > limit:
                    raise InputError(
                        f"{name}: unpacks to more than {MOST_TIMES} times its size, which no text does; if it is one, "
                        "unpack it first"
                    )
                yield block
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{name}: is a folder; name the files in it") from None
    except PermissionError:
        raise InputError(f"{name}: not readable; check its permissions") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{name}: gzip data that is damaged or cut short ({error}); fetch it again") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error})") from None


def _observed(blocks: Iterator[bytes], observe: Callable[[bytes], object]) -> Iterator[bytes]:
    for block in blocks:
        observe(block)
        yield block


def _lines(blocks: Iterator[bytes], *ends: bytes) -> Iterator[bytes]:
    r"""Cut the stream anew so that each block but the last ends with a line end.

    A block that ends with ``\r`` may be cut in the middle of ``\r\n``, so its last byte is not trusted as a lone
    ``\r``. If the stream fails, its last whole lines come before the error.
    """
    held: list[bytes] = []
    try:
        for block in blocks:
            cut = 1 + max(block.rfind(end, 0, len(block) - (end == b"\r")) for end in ends)
            if cut:
                whole = b"".join([*held, block[:cut]])
                held = []  # before others work on it: a line may be long
                yield whole
                del whole
            if cut < len(block):
                held.append(block[cut:])
    except InputError:
        rest = b"".join(held)
        if cut := 1 + max(map(rest.rfind, ends)):
            yield rest[:cut]
        raise
    if held:
        whole = b"".join(held)
        held = []
        yield whole


def _decode_utf8(name: str, blocks: Iterator[bytes], any_level: bool) -> Iterator[str]:
    """Decode blocks of whole lines strictly; line ends become newlines. Whole lines before a fault come before it."""
    offset_bytes = 0
    lines_before = 0
    for data in blocks:
        if offset_bytes == 0:
            _refuse_foreign(name, data, any_level)
        fault = ""
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            text = data[: error.start].decode("utf-8")
            place = _place(data, error.start, offset_bytes, lines_before)
            fault = (
                f"not UTF-8: byte 0x{data[error.start]:02x} at {place}; "
                "convert it with iconv -f LATIN1 -t UTF-8 (or what it is in)"
            ) + (OR_BYTES if any_level else "")
        if b"\0" in data:
            text = text.partition("\0")[0]
            place = _place(data, data.index(b"\0"), offset_bytes, lines_before)
            fault = f"looks binary, with a NUL byte at {place}; "
            fault += "use --level byte to model any file" if any_level else "give a text file"
        if offset_bytes == 0:
            text = text.removeprefix(BYTE_ORDER_MARK)
        text = _unix_lines(text)
        if fault:
            text = text[: text.rfind("\n") + 1]
        offset_bytes += len(data)
        lines_before += text.count("\n")
        del data  # a line may be long, and others now work on its text
        if text:
            yield text
        if fault:
            raise InputError(f"{name}: {fault}")


def _place(data: bytes, index: int, offset_bytes: int, lines_before: int) -> str:
    """Where a byte of a block stands in its file, for a message."""
    before = data[:index]
    lines = before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n")
    return f"offset {offset_bytes + index}, line {lines_before + lines + 1}"


def _refuse_foreign(name: str, data: bytes, any_level: bool) -> None:
    """Say what a file is that begins as no text in UTF-8 does."""
    for mark, encoding in FOREIGN_MARKS:
        if data.startswith(mark):
            remedy = f"convert it with iconv -f {encoding} -t UTF-8{OR_BYTES if any_level else ''}"
            raise InputError(f"{name}: is {encoding}, not UTF-8; {remedy}")
    if data.startswith(GZIP_MAGIC):
        raise InputError(f"{name}: is packed with gzip; unpack it with gunzip, or let its name end in .gz")
    if data.startswith(TOKENS_MAGIC):
        raise InputError(f"{name}: is a token file, and the text itself is wanted here; give that")
    if data.startswith(ZIP_MAGIC):
        raise InputError(f"{name}: is a model or another zip archive, not a text{OR_BYTES if any_level else ''}")


def _unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
