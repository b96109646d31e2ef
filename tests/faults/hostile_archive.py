"""Model files and token files taken apart, and put together again with whatever is wrong in them."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x93charlm-tokens\n"
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


@dataclass
class Archive:
    """A model or a training state: header, and name to array, or to the bytes of its member."""

    header: Any
    arrays: dict[str, NDArray[Any] | bytes]

    @classmethod
    def read(cls, data: bytes) -> Archive:
        with np.load(io.BytesIO(data)) as archive:
            arrays: dict[str, NDArray[Any] | bytes] = {name: archive[name] for name in archive.files}
        header = arrays.pop("header")
        assert not isinstance(header, bytes)
        return cls(json.loads(header.tobytes()), arrays)

    def declare(self) -> None:
        """Make the header's table say what the arrays are."""
        self.header["arrays"] = {
            name: {"shape": list(array.shape), "dtype": array.dtype.name}
            for name, array in self.arrays.items()
            if not isinstance(array, bytes)
        }

    def members(self) -> list[tuple[str, bytes]]:
        """The names and bytes of the archive's members."""
        return [("header.npy", npy(np.frombuffer(json_bytes(self.header), np.uint8)))] + [
            (f"{name}.npy", array if isinstance(array, bytes) else npy(array)) for name, array in self.arrays.items()
        ]

    def write(self) -> bytes:
        return zipped(self.members())


def json_bytes(value: Any) -> bytes:
    """As JSON; bytes are taken for JSON already, and NaN and infinity are written as Python does."""
    return value if isinstance(value, bytes) else json.dumps(value).encode("ascii")


def npy(array: NDArray[Any], *, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=allow_pickle)
    return stream.getvalue()


def npy_with(head: str, data: bytes, version: int = 1) -> bytes:
    """A member with a head of one's own."""
    size = len(head).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + head.encode() + data


def zipped(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive whose checksums are right."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in members:
            member = zipfile.ZipInfo(name) if isinstance(name, str) else name  # dated 1980: the same bytes each time
            archive.writestr(member, data, compression)
    return stream.getvalue()


def with_lying_member(data: bytes, place: int, fields: dict[str, int]) -> bytes:
    """An archive whose directory says something else of one member; ``fields`` are those of `CENTRAL_FIELDS`."""
    changed, start = bytearray(data), 0
    for _ in range(place + 1):
        start = data.find(CENTRAL, start + 1)
        if start < 0:
            return data
    for field, value in fields.items():
        offset, code = CENTRAL_FIELDS[field]
        limit = 1 << 8 * struct.calcsize(code)
        struct.pack_into(f"<{code}", changed, start + offset, value % limit)
    return bytes(changed)


# In an entry of a zip archive's directory: offset and type.
CENTRAL_FIELDS = {
    "flags": (8, "H"),
    "method": (10, "H"),
    "crc": (16, "I"),
    "compressed": (20, "I"),
    "size": (24, "I"),
    "name length": (28, "H"),
    "extra length": (30, "H"),
    "comment length": (32, "H"),
    "disk": (34, "H"),
    "offset": (42, "I"),
}


def split_tokens(data: bytes) -> tuple[dict[str, Any], bytes]:
    """A token file's header and ids."""
    _, line, _ = data.split(b"\n", 2)
    header: dict[str, Any] = json.loads(line)
    return header, data[-header["length"] * np.dtype(header["dtype"]).itemsize :]


def join_tokens(header: Any, ids: bytes) -> bytes:
    """A token file."""
    head = MAGIC + json_bytes(header) + b"\n"
    return head + b"\0" * (-len(head) % 64) + ids
