"""Ways to damage a good file. Each takes its bytes and random numbers, and gives other bytes and what was done."""

from __future__ import annotations

import copy
import io
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults.hostile_archive import (
    CENTRAL,
    CENTRAL_FIELDS,
    END,
    LOCAL,
    Archive,
    join_tokens,
    json_bytes,
    npy,
    npy_with,
    split_tokens,
    with_lying_member,
    zipped,
)
from tests.faults.hostile_fields import LARGE, change_field, huge_list, raw_numbers

Draw = random.Random
Made = tuple[bytes, str]
Mutation = Callable[[bytes, Draw], Made]

NAMES = (
    "../escaped.npy", "/tmp/escaped.npy", "a/../../escaped.npy", "..\\escaped.npy", "C:\\escaped.npy", "a\0b.npy",
    "a" * 60_000 + ".npy", "con.npy", ".npy", "header.npy/", "header.npy", "\u202egnp.npy", "a/b/../c.npy", " ",
)  # fmt: skip
ABSURD = (
    np.nan, np.inf, -np.inf, 1e38, -1e38, 3.4e38, -3.4e38, 1e30, -1e30, 1e20, 1e10, 1e4, -0.0, 1e-45, 1e-40, 1e-38,
)  # fmt: skip
DTYPES = (
    "float16", "float64", "int8", "int16", "int32", "int64", "uint8", "uint64", "complex64", "bool", ">f4", "S4", "U1",
    "M8[s]",
)  # fmt: skip


class Canary:
    """Unpickled, it leaves a file behind."""

    path = "canary"

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def flipped(data: bytes, draw: Draw, places: range) -> Made:
    changed, count = bytearray(data), draw.choice([1, 1, 1, 2, 8])
    for _ in range(count):
        changed[draw.choice(places)] ^= 1 << draw.randrange(8)
    return bytes(changed), f"{count} bits from {places.start} on"


def bits(data: bytes, draw: Draw) -> Made:
    return flipped(data, draw, range(len(data)))


def bits_of_the_directory(data: bytes, draw: Draw) -> Made:
    return flipped(data, draw, range(max(0, data.find(CENTRAL)), len(data)))


def bits_of_heads(data: bytes, draw: Draw) -> Made:
    starts = [i for i in range(len(data)) if data.startswith((LOCAL, b"\x93NUMPY"), i)] or [0]
    start = draw.choice(starts)
    return flipped(data, draw, range(start, min(start + 80, len(data))))


def bits_of_the_json(data: bytes, draw: Draw) -> Made:
    """With checksums that are right."""
    archive = Archive.read(data)
    text, _ = flipped(json_bytes(archive.header), draw, range(len(json_bytes(archive.header))))
    archive.header = text
    return archive.write(), "bits of the JSON"


def bits_of_members(data: bytes, draw: Draw) -> Made:
    """With checksums that are right."""
    members = Archive.read(data).members()
    place = draw.randrange(len(members))
    changed, what = flipped(members[place][1], draw, range(min(len(members[place][1]), draw.choice([128, 1 << 30]))))
    members[place] = members[place][0], changed
    return zipped(members), f"{members[place][0]}: {what}"


def cut(data: bytes, draw: Draw) -> Made:
    size = draw.randrange(len(data))
    return data[:size], f"cut at {size}"


def appended(data: bytes, draw: Draw) -> Made:
    more = draw.choice([b"\0", data, draw.randbytes(99), END + bytes(18), bytes(LARGE), data[len(data) // 2 :]])
    where = draw.choice(["after", "before"])
    return (data + more if where == "after" else more + data), f"{len(more)} bytes {where}"


def bytes_moved(data: bytes, draw: Draw) -> Made:
    first, size = draw.randrange(len(data)), draw.randint(1, 200)
    to = draw.randrange(len(data))
    piece = data[first : first + size]
    action = draw.choice(["zeroed", "copied", "inserted", "removed"])
    if action == "zeroed":
        return data[:first] + bytes(len(piece)) + data[first + size :], action
    if action == "copied":
        return data[:to] + piece + data[to + size :], action
    if action == "inserted":
        return data[:to] + piece + data[to:], action
    return data[:first] + data[first + size :], action


def swapped(data: bytes, draw: Draw) -> Made:
    archive = Archive.read(data)
    one, other = draw.choices(list(archive.arrays), k=2)
    archive.arrays[one], archive.arrays[other] = archive.arrays[other], archive.arrays[one]
    if draw.randrange(2):
        archive.declare()
    return archive.write(), f"{one} and {other} swapped"


def renamed(data: bytes, draw: Draw) -> Made:
    archive = Archive.read(data)
    name = draw.choice(list(archive.arrays))
    array = archive.arrays.pop(name)
    action = draw.choice(["removed", "renamed", "twice"])
    if action != "removed":
        archive.arrays[name + "x"] = array
    if action == "twice":
        archive.arrays[name] = array
    archive.declare()
    return archive.write(), f"{name} {action}"


def other_dtype(data: bytes, draw: Draw) -> Made:
    archive = Archive.read(data)
    names = list(archive.arrays) if draw.randrange(2) else draw.sample(list(archive.arrays), 1)
    kind = draw.choice(DTYPES)
    for name in names:
        array = archive.arrays[name]
        assert not isinstance(array, bytes)
        with np.errstate(all="ignore"):
            archive.arrays[name] = array.astype(kind) if kind != "M8[s]" else array.astype("i8").view(kind)
    archive.declare()
    return archive.write(), f"{len(names)} arrays as {kind}"


def other_shape(data: bytes, draw: Draw) -> Made:
    archive = Archive.read(data)
    name = draw.choice(list(archive.arrays))
    array = archive.arrays[name]
    assert not isinstance(array, bytes)
    shape = draw.choice(
        [
            (), (0,), (0, 2**62), (2**40, 2**40), (2**62,), (10**17, 0, 10**17), (1,) * 70, array.shape[::-1],
            (array.size,), (1, *array.shape), (2**31, 2**31, 4), (*array.shape, 1), (-1,), (2**64,),
        ]
    )  # fmt: skip
    archive.declare()
    where = draw.choice(["head", "table", "both"])
    if where != "head":
        archive.header["arrays"][name]["shape"] = list(shape)
    if where != "table":
        head = f"{{'descr': '<f4', 'fortran_order': {draw.choice(['False', 'False', 'True'])}, 'shape': {shape}, }}\n"
        archive.arrays[name] = npy_with(head, array.tobytes())
    return archive.write(), f"{name} is {shape} in {where}"


def lying_directory(data: bytes, draw: Draw) -> Made:
    field = draw.choice(list(CENTRAL_FIELDS))
    value = draw.choice([0, 1, 8, 12, 14, 99, 0x0801, 2**16 - 1, 2**31, 2**32 - 1, draw.randrange(2**32)])
    fields = {field: value} | ({"compressed": value} if field == "size" else {})
    return with_lying_member(data, draw.randrange(5), fields), f"{field} is {value}"


def bomb(data: bytes, draw: Draw) -> Made:
    members = Archive.read(data).members()
    kind = draw.choice(["deflated", "bzip2", "lzma", "zeros", "shared", "nested", "many"])
    methods = {"deflated": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA}
    if kind in methods:
        return zipped(members, methods[kind]), kind
    if kind == "zeros":  # 1 : 1000
        name = members[draw.randrange(len(members))][0]
        big = npy(np.zeros(50_000_000, np.uint8))
        return zipped([(n, big if n == name else d) for n, d in members], zipfile.ZIP_DEFLATED), f"{name}: 50 MB"
    if kind == "nested":
        return zipped([*members, ("inner.npy", zipped(members))]), kind
    if kind == "many":
        return zipped([*members, *((f"a{i}.npy", b"") for i in range(8000))]), kind
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a") as archive:
        one = archive.infolist()[-1]
        for i in range(draw.choice([1, 100, 5000])):
            twin = zipfile.ZipInfo(f"twin{i}.npy")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(twin, field, getattr(one, field))
            archive.filelist.append(twin)
        archive.comment = b"so that the directory is written anew"
    return stream.getvalue(), kind


def names(data: bytes, draw: Draw) -> Made:
    members: list[tuple[str | zipfile.ZipInfo, bytes]] = list(Archive.read(data).members())
    place = draw.randrange(len(members))
    name = draw.choice([*NAMES, str(members[draw.randrange(len(members))][0])])
    member: str | zipfile.ZipInfo = name
    if draw.randrange(4) == 0:
        member = zipfile.ZipInfo(name)
        member.external_attr = 0o120777 << 16  # a symbolic link
    content = draw.choice([members[place][1], b"/etc/passwd", npy(np.zeros(3, np.float32))])
    if draw.randrange(2):
        members[place] = member, content
    else:
        members.insert(place, (member, content))
    return zipped(members), f"a member {name!r:.40}"


def giant_json(data: bytes, draw: Draw) -> Made:
    archive = Archive.read(data)
    archive.header["extra"] = "@"
    text = json_bytes(archive.header).decode()
    what, value = draw.choice(
        [
            ("nested lists", "[" * 100_000 + "]" * 100_000), ("nested lists that do not end", "[" * 100_000),
            ("nested objects", '{"a":' * 100_000 + "1" + "}" * 100_000), ("a giant number", "1" * 900_000),
            ("1e400", "1e400"), ("a long fraction", "0." + "3" * 900_000), ("a long string", f'"{"x" * 900_000}"'),
            ("keys", "{" + ",".join(f'"{i}":0' for i in range(80_000)) + "}"),
            ("one key many times", "{" + ",".join(['"a":0'] * 100_000) + "}"), ("lists", "[" + "[]," * 300_000 + "0]"),
            ("escapes", f'"{chr(92)}u0000{chr(92)}ud800{chr(92)}u001b[31m"'), ("NaN", "NaN"), ("a bad end", "]"),
            ("white space", " " * 900_000 + "0"), ("digits", "9" * 4300), ("a list of 1e400", "[1e400,-1e400]"),
        ]
    )  # fmt: skip
    if draw.randrange(3) == 0:  # in the place of a field that is read
        key = draw.choice(list(archive.header))
        archive.header = {**archive.header, key: "@"}
        archive.header.pop("extra", None)
        text, what = json_bytes(archive.header).decode(), f"{what} as {key}"
    archive.header = text.replace('"@"', value).encode()
    return archive.write(), what


def numbers(data: bytes, draw: Draw) -> Made:
    archive = Archive.read(data)
    count = draw.choice([1, 1, 2, len(archive.arrays)])
    chosen, value = draw.sample(list(archive.arrays), min(count, len(archive.arrays))), draw.choice(ABSURD)
    how = draw.choice(["one", "all", "some", "scaled"])
    for name in chosen:
        array = archive.arrays[name]
        assert not isinstance(array, bytes)
        array = array.copy()
        flat = array.reshape(-1)
        if not flat.size:
            continue
        with np.errstate(all="ignore"):
            if how == "one":
                flat[draw.randrange(flat.size)] = value
            elif how == "all":
                flat[:] = value
            elif how == "scaled":
                flat *= np.asarray(value, array.dtype)
                flat[~np.isfinite(flat)] = 3e38 if np.isfinite(value) else value
            else:
                flat[:: draw.randint(2, 9)] = value
        archive.arrays[name] = array
    return archive.write(), f"{value} in {how} of {', '.join(chosen):.60}"


def objects(data: bytes, draw: Draw) -> Made:
    archive, canary = Archive.read(data), Canary()
    name, kind = draw.choice([*archive.arrays, "header"]), draw.choice(["object", "pickle", "second", "record", "file"])
    if kind == "file":
        return pickle.dumps(canary, protocol=draw.randrange(6)), "a pickle"
    member = {
        "object": npy(np.array([canary], dtype=object), allow_pickle=True),
        "pickle": pickle.dumps(canary),
        "second": npy_with("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", pickle.dumps(canary), 2),
        "record": npy(np.zeros(3, dtype=[("a", "<f4"), ("b", "<i4")])),
    }[kind]
    extra = [("archive/data.pkl", pickle.dumps(canary))] if draw.randrange(4) == 0 else []
    members = [(n, member if n == f"{name}.npy" else d) for n, d in archive.members()]
    return zipped(members + extra), f"{name} is {kind}"


def rewritten(archive: Archive) -> bytes:
    """The file, with its placeholders for raw numbers put in."""
    archive.header = raw_numbers(json_bytes(archive.header).decode()).encode()
    return archive.write()


def field(data: bytes, draw: Draw) -> Made:
    archive = Archive.read(data)
    what = [change_field(archive.header, draw) for _ in range(draw.choice([1, 1, 1, 2, 4]))]
    return rewritten(archive), "; ".join(what)


def field_of_a_part(data: bytes, draw: Draw) -> Made:
    archive = Archive.read(data)
    parts = ("model", "training", "progress", "safe", "text", "corpus", "tokenizer", "history", "label_counts")
    what = change_field(archive.header, draw, (draw.choice(parts), "model"))
    return rewritten(archive), what


def whole_header(data: bytes, draw: Draw) -> Made:
    archive = Archive.read(data)
    archive.header = draw.choice([None, [], {}, "x", 1, True, [archive.header], {"format": "charlm-model"}])
    return archive.write(), "another header"


def symbols(data: bytes, draw: Draw) -> Made:
    archive = Archive.read(data)
    keys = ("vocabulary", "target_vocabulary", "labels", "characters", "label_counts")
    key = draw.choice([key for key in keys if key in archive.header])
    archive.header[key] = huge_list(draw)
    return archive.write(), f"{key} is {archive.header[key]!r:.60}"


def other_kind(data: bytes, draw: Draw) -> Made:
    archive = Archive.read(data)
    key, values = draw.choice(
        [
            ("task", ["lm", "classify", "tag", "transduce", "x"]), ("kind", ["model", "training-state"]),
            ("schema", [0, 1, 2, 10**9]), ("format", ["x", ""]), ("finished", [True, 0, "no"]), ("safe", [None, {}]),
        ]
    )  # fmt: skip
    archive.header[key] = draw.choice(values)
    return archive.write(), f"{key} is {archive.header[key]!r}"


def tokens_header(data: bytes, draw: Draw) -> Made:
    header, ids = split_tokens(data)
    what = change_field(header, draw)
    return join_tokens(raw_numbers(json_bytes(header).decode()).encode(), ids), what


def tokens_symbols(data: bytes, draw: Draw) -> Made:
    header, ids = split_tokens(data)
    header = copy.deepcopy(header)
    extra = huge_list(draw)
    header["symbols"] = extra if draw.randrange(2) else [*header["symbols"], *extra[2:]]
    if draw.randrange(2):
        size = len(header["symbols"])
        kind = "uint8" if size <= 256 else "uint16" if size <= 65536 else "int32"
        ids = np.frombuffer(ids, header["dtype"]).astype(kind).tobytes()
        header["dtype"] = kind
    return join_tokens(header, ids), f"symbols are {extra!r:.60}"


COMMON: tuple[Mutation, ...] = (bits, cut, appended, bytes_moved)
OF_TOKENS: tuple[Mutation, ...] = (*COMMON, tokens_header, tokens_header, tokens_header, tokens_symbols, tokens_symbols)
OF_MODELS: tuple[Mutation, ...] = (
    *COMMON, bits_of_the_directory, bits_of_heads, bits_of_the_json, bits_of_members, swapped, renamed, other_dtype,
    other_shape, lying_directory, bomb, names, giant_json, numbers, numbers, objects, field, field, field,
    field_of_a_part, field_of_a_part, field_of_a_part, whole_header, symbols, other_kind,
)  # fmt: skip


def set_canary(path: Path) -> None:
    """Where a pickle that is run leaves its trace."""
    Canary.path = str(path)
