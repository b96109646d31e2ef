"""The model file: one .npz that holds a JSON header and named arrays, and never a pickle.

    header.npy        uint8, the header as JSON in ASCII
    layer0/w_h.npy    one member an array, in the order in which they were given

Members are stored, not compressed: loading is quick, and no member can unpack to more than the file's size.
The header declares every array's shape and dtype, so that what is read is checked before memory is set aside
for it. ``numpy.load(path)`` opens the file too.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm import __version__, files
from charlm.errors import CheckpointError
from charlm.files import PathLike

FORMAT = "charlm-model"
SCHEMA = 1

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")

HEADER = "header"
HEADER_LIMIT_BYTES = 64 * 2**20
RESERVED = ("format", "schema", "kind", "charlm", "arrays")  # header keys that save() writes

# What may stand in a file: little-endian numbers of a fixed size. Objects, strings and records may not.
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DESCRS = {name: np.dtype(name).newbyteorder("<").str for name in ("float32", "float64", *_INTEGERS)}
DTYPES = {descr: name for name, descr in DESCRS.items()}

ARRAY_NAME = re.compile(r"[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*(?:/[A-Za-z0-9_]+(?:[.-][A-Za-z0-9_]+)*)*")

# The head of an .npy member of format 1.0, as NumPy writes it; anything else is refused, never evaluated.
NPY_MAGIC = b"\x93NUMPY\x01\x00"
NPY_HEAD = re.compile(
    r"\{'descr': '([<|][a-z]\d)', 'fortran_order': False, 'shape': \(((?:\d{1,18}, ?)*\d{0,18})\), \} *\n"
)

# What zipfile and NumPy raise on a file that is not what it should be.
DAMAGE = (
    zipfile.BadZipFile,
    struct.error,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    LookupError,
    EOFError,
)

INTEGERS = range(-(2**63), 2**63)  # of a header; a longer one would overflow somewhere behind the reader

# How files begin that are given by mistake, and what they are.
FOREIGN = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    *((bytes([0x80, protocol]), "a pickle, which charlm never opens") for protocol in range(2, 6)),
    (b"\x93NUMPY", "a single NumPy array (.npy)"),
    (b"\x1f\x8b", "a gzip file"),
)

KINDS = {"model": "a model", "training-state": "a training state"}

# What to do about it.
REPLACE = "train it again or copy it afresh"
GIVE_MODEL = "give the .npz that `charlm train` wrote"
KIND_REMEDIES = {
    "model": "give the model that `charlm train` wrote",
    "training-state": "--resume needs a training state; --init-from starts from a model's weights",
}


@dataclass
class Checkpoint:
    """What a file holds.

    Attributes:
        header: the JSON header, with the keys that ``save`` adds.
        arrays: name to array, each in its own memory, native byte order, C order, writable.
    """

    header: dict[str, Any]
    arrays: Arrays


def save(path: PathLike, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], *, kind: str = "model") -> None:
    """Write a checkpoint, which is there whole or not at all: see ``charlm.files``.

    The same header and arrays give the same bytes.

    Args:
        path: the file to write. A symbolic link is followed.
        header: what JSON can hold, no NaN or infinity, integers of 64 bits. The keys format, schema, kind, charlm
            (its version) and arrays (shape and dtype of each) are added, or replaced in a header that was loaded.
        arrays: name to array, any shape, a dtype of ``DESCRS``. A name is letters, digits and ``_``, with
            ``.`` or ``-`` inside and ``/`` between parts: ``layer0/w_h``.
        kind: what the file is for: "model" or "training-state".

    Raises:
        CheckpointError: an array holds NaN or infinity, or the header is too long.
        OutputError: the file cannot be written. In either case the old one is untouched.
        ValueError: a name, a dtype or the header is not as described: the caller's mistake.
    """
    members: Arrays = {}
    for name, array in arrays.items():
        if not ARRAY_NAME.fullmatch(name) or name == HEADER:
            raise ValueError(f"not a name for an array: {name!r}")
        if array.dtype.name not in DESCRS:
            raise ValueError(f"array {name!r} is of dtype {array.dtype}, which a checkpoint does not hold")
        if not _is_finite(array):
            raise _error(path, f"not written, array {name!r} holds NaN or infinity", "try a lower --lr")
        members[name] = np.asarray(array, dtype=DESCRS[array.dtype.name], order="C")
    table = {name: {"shape": list(a.shape), "dtype": a.dtype.name} for name, a in members.items()}
    own = {"format": FORMAT, "schema": SCHEMA, "kind": kind, "charlm": __version__}
    rest = {key: value for key, value in header.items() if key not in RESERVED}
    text = json.dumps({**own, **rest, "arrays": table}, allow_nan=False).encode("ascii")
    if len(text) > HEADER_LIMIT_BYTES:
        what = f"not written, the header takes {len(text):,} bytes of {HEADER_LIMIT_BYTES:,} allowed"
        raise _error(path, what, "use a smaller vocabulary (--vocab-size or --min-count)")
    with files.replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {HEADER: np.frombuffer(text, dtype=np.uint8), **members}.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980: the same content gives the same bytes
            member.create_system = 3  # on every system the same
            member.external_attr = 0o644 << 16
            member.file_size = array.nbytes  # zipfile decides by it whether 64-bit sizes are needed
            with archive.open(member, "w") as stream:
                np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
                stream.write(array.reshape(-1).view(np.uint8).data)  # write_array would copy it


def load(path: PathLike, *, kind: str | None = "model") -> Checkpoint:
    """Read a checkpoint, and refuse whatever is not what ``save`` writes.

    Args:
        path: the file to read.
        kind: what it must be for: "model" or "training-state"; None for either.

    Raises:
        CheckpointError: the file is missing, foreign, damaged, newer, of another kind, or holds a value that
            is not finite. One line: the path, what is wrong, what to do.
    """
    try:
        with open(path, "rb", opener=_open_regular) as file:
            _refuse_foreign(path, file)
            file_bytes = file.seek(0, os.SEEK_END)
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                members = _members(path, archive, file_bytes)
                header = _read_header(path, archive, members[HEADER], kind)
                table = _table(path, header)
                _compare_names(path, set(members) - {HEADER}, set(table), "its header")
                return Checkpoint(header, {n: _read_array(path, archive, members[n], *table[n]) for n in table})
    except FileNotFoundError:
        raise _error(path, "no such file", "make one with `charlm train`") from None
    except (OSError, *DAMAGE) as error:
        if isinstance(error, OSError) and error.filename is not None:  # from open(), not from a seek to nowhere
            raise _error(path, f"cannot be read ({error.strerror})", "check the path") from None
        raise _error(path, f"damaged or cut short ({_brief(error)})") from None


def require(header: Mapping[str, Any], key: str, kind: type[T], path: PathLike) -> T:
    """The value of ``key`` in a header, or in a part of one, which must be of type ``kind``.

    An int passes as a float, and is converted; a bool passes as neither.

    Raises:
        CheckpointError: the key is missing or its value is of another type.
    """
    if key not in header:
        raise _error(path, f"the header has no {key!r}")
    value = header[key]
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _error(path, f"{key!r} in the header is {type(value).__name__}, not {kind.__name__}")
    return value


def check_arrays(arrays: Mapping[str, NDArray[Any]], expected: Mapping[str, tuple[int, ...]], path: PathLike) -> None:
    """Compare a checkpoint's arrays with the names and shapes that its configuration asks for.

    Raises:
        CheckpointError: an array is missing, is not asked for, or has another shape.
    """
    _compare_names(path, set(arrays), set(expected), "its configuration")
    for name, shape in expected.items():
        if arrays[name].shape != tuple(shape):
            found = arrays[name].shape
            raise _error(path, f"array {name!r} has shape {found}, its configuration asks for {tuple(shape)}")


# ---- messages ----


def _error(path: PathLike, what: str, remedy: str = REPLACE) -> CheckpointError:
    return CheckpointError(f"{os.fspath(path) or repr('')}: {what}; {remedy}")


def _brief(value: object) -> str:
    """A value, or an exception's message, for an error message: on one line, and short."""
    text = str(value) if isinstance(value, BaseException) else repr(value)
    text = " ".join(text.split()) or type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _compare_names(path: PathLike, found: set[str], expected: set[str], who: str) -> None:
    """Raise if the arrays found are not those that ``who`` names."""
    for names, what in (
        (expected - found, f"is missing and {who} names"),
        (found - expected, f"is not in {who}"),
    ):
        if names:
            others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise _error(path, f"array {_brief(min(names))}{others} {what}")


# ---- reading ----


def _open_regular(path: str, flags: int) -> int:
    """Open for reading; refuse a folder, a device or a pipe, without waiting for a pipe's other end."""
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    what = "is a folder" if stat.S_ISDIR(mode) else "is a pipe or a device, a model must be a plain file"
    raise _error(path, what, GIVE_MODEL)


def _refuse_foreign(path: PathLike, file: IO[bytes]) -> None:
    """Say what a file is that does not begin like a zip archive."""
    start = file.read(512)
    if start.startswith(b"PK\x03\x04"):
        return
    if not start:
        raise _error(path, "is empty")
    for magic, what in FOREIGN:
        if start.startswith(magic):
            raise _error(path, f"not a charlm model but {what}", GIVE_MODEL)
    if _is_text(start):
        raise _error(path, "not a charlm model but a text", f"{GIVE_MODEL}; a text comes after it")
    raise _error(path, "not a charlm model", GIVE_MODEL)


def _is_text(start: bytes) -> bool:
    """Whether ``start`` is UTF-8, perhaps cut within its last character, without a NUL."""
    try:
        return "\0" not in start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and b"\0" not in start


def _members(path: PathLike, archive: zipfile.ZipFile, file_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """The archive's members by array name; refuse those that ``save`` would not have written."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        file_name = info.orig_filename
        name = file_name.removesuffix(".npy")
        if file_name.endswith(".pkl"):
            raise _error(path, "a PyTorch file, which is a pickle and never opened", GIVE_MODEL)
        if not ARRAY_NAME.fullmatch(name) or name == file_name:
            raise _error(path, f"not a charlm model: an archive with a member {_brief(file_name)}", GIVE_MODEL)
        if name in members:
            raise _error(path, f"holds {_brief(name)} twice")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise _error(path, f"{_brief(name)} is compressed, which no array of a charlm model is")
        members[name] = info
    # Members that share their bytes could make a small file unpack to a large one.
    total = sum(info.file_size for info in members.values())
    if total > file_bytes:
        raise _error(path, f"would unpack to {total:,} bytes, though it is {file_bytes:,} bytes long")
    if HEADER not in members:
        raise _error(path, "not a charlm model: an archive without a header", GIVE_MODEL)
    return members


def _read_header(path: PathLike, archive: zipfile.ZipFile, info: zipfile.ZipInfo, kind: str | None) -> dict[str, Any]:
    """The JSON header, once its format, schema and kind are found to be those that can be read."""
    if info.file_size > HEADER_LIMIT_BYTES + 2**16:  # the latter for the .npy head
        raise _error(path, f"the header takes {info.file_size:,} bytes, more than any model needs")
    data = _read_array(path, archive, info, "uint8", None)
    try:
        text = data.tobytes().decode("ascii")
        header = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_short)
    except (ValueError, RecursionError) as error:
        raise _error(path, f"the header is not JSON ({_brief(error)})") from None
    if not isinstance(header, dict):
        raise _error(path, "the header is not a JSON object")
    found = header.get("format")
    if found != FORMAT:
        raise _error(path, f"not a charlm model: its format is {_brief(found)}, not {FORMAT!r}", GIVE_MODEL)
    schema = require(header, "schema", int, path)
    writer = require(header, "charlm", str, path)
    if schema > SCHEMA:
        what = f"written by charlm {_brief(writer)[1:-1]} with schema {schema}"
        what += f"; this is charlm {__version__} with schema {SCHEMA}"
        raise _error(path, what, "upgrade with: pip install -U charlm")
    if schema < 1:
        raise _error(path, f"the header's schema is {schema}, which never was")
    found = require(header, "kind", str, path)
    if found not in ((kind,) if kind is not None else KINDS):
        wanted = "a model or a training state" if kind is None else KINDS.get(kind, kind)
        what = f"holds {KINDS.get(found, _brief(found))}, not {wanted}"
        raise _error(path, what, REPLACE if kind is None else KIND_REMEDIES.get(kind, REPLACE))
    return header


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    """A number with a fraction or an exponent; JSON does not say how large one may be."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number


def _short(text: str) -> int:
    number = int(text)
    if number not in INTEGERS:
        raise ValueError(f"{text} is too large a number")
    return number


def _table(path: PathLike, header: Mapping[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What the header declares: name to dtype and shape."""
    table = {}
    for name, entry in require(header, "arrays", dict, path).items():
        shape, dtype = (entry.get("shape"), entry.get("dtype")) if isinstance(entry, dict) else (None, None)
        if not isinstance(dtype, str) or dtype not in DESCRS:
            raise _error(path, f"the header declares dtype {_brief(dtype)} for {_brief(name)}")
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise _error(path, f"the header declares shape {_brief(shape)} for {_brief(name)}")
        table[name] = dtype, tuple(shape)
    return table


def _read_array(
    path: PathLike, archive: zipfile.ZipFile, info: zipfile.ZipInfo, dtype: str, shape: tuple[int, ...] | None
) -> NDArray[Any]:
    """One member, which must be of this dtype and shape (None: one axis of any size), and finite."""
    name = _brief(info.filename.removesuffix(".npy"))
    with archive.open(info) as stream:
        start = stream.read(len(NPY_MAGIC) + 2)
        head_bytes = int.from_bytes(start[len(NPY_MAGIC) :], "little")
        head = NPY_HEAD.fullmatch(stream.read(head_bytes).decode("latin-1"))
        if not start.startswith(NPY_MAGIC) or head is None or head[1] not in DTYPES:
            raise _error(path, f"{name} is not an array of plain numbers")
        found = tuple(int(size) for size in re.findall(r"\d+", head[2]))
        if DTYPES[head[1]] != dtype or (len(found) != 1 if shape is None else found != shape):
            what = f"{name} is {DTYPES[head[1]]} {_brief(found)}, the header declares {dtype} {_brief(shape)}"
            raise _error(path, what)
        # Python's integers: NumPy's product would overflow in silence.
        array_bytes = np.dtype(head[1]).itemsize
        for size in found:
            array_bytes *= size
        if array_bytes != info.file_size - len(start) - head_bytes:
            raise _error(path, f"{name} does not take the bytes that its shape needs")
        array: NDArray[Any] = np.empty(found, dtype=head[1])
        flat = array.reshape(-1).view(np.uint8)
        done = 0
        while chunk := stream.read(2**20):  # to the very end, where zipfile compares the checksum
            flat[done : done + len(chunk)] = np.frombuffer(chunk, dtype=np.uint8)
            done += len(chunk)
        if done != array_bytes:
            raise EOFError(f"{name} ends early")
    if not _is_finite(array):
        raise _error(path, f"{name} holds NaN or infinity")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _is_finite(array: NDArray[Any]) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
