from __future__ import annotations

import io
import json
import os
import pickle
import random
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from charlm import __version__, checkpoint
from charlm.errors import CheckpointError, OutputError

RNG = np.random.default_rng(5)
HEADER = {
    "model": {"cell": "lstm", "hidden_size": 5, "dropout": 0.5, "tied": False},
    "vocabulary": ["<unk>", "<eos>", "é", "\n", "\U0001f600", "\udc80"],
    "history": [{"epoch": 1, "loss_nats": 1.25}],
    "corpus": None,
}
ARRAYS = {
    "embedding": RNG.standard_normal((4, 3)).astype(np.float32),
    "layer0/w_h": RNG.standard_normal((5, 20)).astype(np.float32),
    "layer0/b": RNG.standard_normal(20),
    "optimiser/step-count.total": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 3), dtype=np.float64),
    "ids": np.arange(11, dtype=np.uint16),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.npz"
    checkpoint.save(path, HEADER, ARRAYS)
    return path


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same names in the same order, the same dtypes, shapes and bits."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def refusal(path: str | Path, **options: Any) -> str:
    """The message with which ``load`` refuses a file: one line, beginning with the path, with a remedy."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "; " in message
    assert len(message) < 300 + len(str(path))
    assert caught.value.exit_code == 1
    return message


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), **options)
    return stream.getvalue()


def npy_with(head: str) -> bytes:
    """An .npy member with a head of one's own and room for ``ARRAYS["embedding"]``."""
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + bytes(48)


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def header_of(path: Path) -> dict[str, Any]:
    with np.load(path) as archive:
        header: dict[str, Any] = json.loads(archive["header"].tobytes())
    return header


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def with_header(path: Path, header: dict[str, Any] | bytes) -> Path:
    """Replace a model's header; the arrays stay."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    write_zip(path, {**members_of(path), "header.npy": npy(np.frombuffer(text, np.uint8))})
    return path


def with_member(path: Path, name: str, data: bytes) -> Path:
    write_zip(path, {**members_of(path), name: data})
    return path


# ---- what is written ----


def test_round_trip(model: Path) -> None:
    loaded = checkpoint.load(model)
    assert_same(loaded.arrays, ARRAYS)
    assert {key: loaded.header[key] for key in HEADER} == HEADER
    assert loaded.header["format"] == "charlm-model"
    assert loaded.header["schema"] == 1
    assert loaded.header["kind"] == "model"
    assert loaded.header["charlm"] == __version__
    assert loaded.header["arrays"]["layer0/w_h"] == {"shape": [5, 20], "dtype": "float32"}
    assert all(array.flags.writeable and array.flags.c_contiguous for array in loaded.arrays.values())


shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
floats = st.floats(allow_nan=False, allow_infinity=False, width=32)
arrays = st.one_of(
    hnp.arrays(np.float32, shapes, elements=floats),
    hnp.arrays(np.float64, shapes, elements=st.floats(allow_nan=False, allow_infinity=False)),
    *(hnp.arrays(name, shapes) for name in ("int8", "int16", "int32", "int64")),
    *(hnp.arrays(name, shapes) for name in ("uint8", "uint16", "uint32", "uint64")),
)
names = st.from_regex(checkpoint.ARRAY_NAME, fullmatch=True).filter(lambda name: name != "header")
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(st.dictionaries(names, arrays, max_size=4), st.dictionaries(st.text(), json_values, max_size=4))
def test_any_arrays_and_any_header_come_back_bit_for_bit(content: dict[str, Any], header: dict[str, Any]) -> None:
    header = {key: value for key, value in header.items() if key not in checkpoint.RESERVED}
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        checkpoint.save(first, header, content)
        loaded = checkpoint.load(first)
        assert_same(loaded.arrays, content)
        assert {key: loaded.header[key] for key in header} == header
        checkpoint.save(second, loaded.header, loaded.arrays)
        assert first.read_bytes() == second.read_bytes()


def test_numpy_opens_it_without_pickle(model: Path) -> None:
    with np.load(model, allow_pickle=False) as archive:
        assert archive.files[0] == "header"
        assert np.array_equal(archive["layer0/w_h"], ARRAYS["layer0/w_h"])


def test_memory_order_and_byte_order_do_not_change_the_file(tmp_path: Path) -> None:
    array = ARRAYS["layer0/w_h"]
    files = []
    for i, same in enumerate((array, np.asfortranarray(array), array.astype(">f4"), np.repeat(array, 2, 0)[::2])):
        files.append(tmp_path / f"{i}.npz")
        checkpoint.save(files[-1], {}, {"w": same})
        assert_same(checkpoint.load(files[-1]).arrays, {"w": array})
    assert len({file.read_bytes() for file in files}) == 1


def test_the_date_does_not_change_the_file(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model.read_bytes()
    monkeypatch.setattr("time.time", lambda: 2e9)
    checkpoint.save(model, HEADER, ARRAYS)
    assert model.read_bytes() == before


@pytest.mark.parametrize("name", ["", "/w", "w/", "a//b", "../w", "a/../b", ".w", "w\n", "a\\b", "é", "header"])
def test_save_takes_only_plain_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        checkpoint.save(tmp_path / "m.npz", {}, {name: np.zeros(1)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("array", [np.array([None]), np.array("a"), np.zeros(1, complex), np.zeros(1, np.float16)])
def test_save_takes_only_plain_numbers(tmp_path: Path, array: Any) -> None:
    with pytest.raises(ValueError, match="dtype"):
        checkpoint.save(tmp_path / "m.npz", {}, {"w": array})
    assert list(tmp_path.iterdir()) == []


def test_save_refuses_a_header_that_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(tmp_path / "m.npz", {"loss": float("nan")}, {})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_save_refuses_what_load_would_refuse(model: Path, bad: float) -> None:
    before = model.read_bytes()
    with pytest.raises(CheckpointError, match="'w' holds NaN or infinity"):
        checkpoint.save(model, {}, {"w": np.array([0.0, bad])})
    assert model.read_bytes() == before


def test_save_refuses_a_header_that_load_would_refuse(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "HEADER_LIMIT_BYTES", 100)
    with pytest.raises(CheckpointError, match="vocab-size"):
        checkpoint.save(model, HEADER, {})


# ---- how it is written: tests/test_files.py says more ----


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    model: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    before = model.read_bytes()

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        checkpoint.save(model, {}, {"w": np.zeros(1000)})
    monkeypatch.undo()
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f"{model}: cannot be written (No space left on device); free some space")
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 64 KiB."""
    resource = pytest.importorskip("resource")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.usefixtures("small_disk")
def test_a_write_that_stops_half_way_leaves_the_old_file(model: Path) -> None:
    before = model.read_bytes()
    with pytest.raises(OutputError, match="File too large"):
        checkpoint.save(model, {}, {"w": np.zeros(2**17)})
    assert model.read_bytes() == before
    assert list(model.parent.iterdir()) == [model]


def test_links_are_followed_and_devices_refused(model: Path) -> None:
    link = model.with_name("link.npz")
    link.symlink_to(model.name)
    checkpoint.save(link, {"written": "through the link"}, {})
    assert link.is_symlink()
    assert checkpoint.load(model).header["written"] == "through the link"
    with pytest.raises(OutputError, match="not a plain file"):
        checkpoint.save(os.devnull, {}, {})


# ---- what is refused ----


def test_missing(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "m.npz")


def test_no_plain_file(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # nobody writes to it: to open it in the usual way would wait for ever
    assert "is a pipe" in refusal(fifo)
    assert "cannot be read (File name too long)" in refusal("x" * 300)


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_is_named_and_never_run(tmp_path: Path, protocol: int) -> None:
    path, trace = tmp_path / "model.pt", tmp_path / "trace"
    bomb = pickle.dumps(Bomb(trace), protocol=protocol)
    path.write_bytes(bomb)
    assert "a pickle, which charlm never opens" in refusal(path)
    write_zip(path, {"archive/data.pkl": bomb, "archive/version": b"3"})
    assert "PyTorch" in refusal(path)
    assert not trace.exists()


def test_an_array_of_objects_is_never_run(model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    objects = np.array([Bomb(trace)], dtype=object)
    with_member(model, "embedding.npy", npy(objects, allow_pickle=True))
    assert "'embedding' is not an array of plain numbers" in refusal(model)
    with_member(model, "header.npy", npy(objects, allow_pickle=True))
    assert "'header' is not an array of plain numbers" in refusal(model)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"", "is empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
        (b"\x1f\x8b\x08" + bytes(99), "gzip"),
        (npy(np.zeros(3)), "single NumPy array"),
        (b"To be, or not to be\n" * 99, "a text; give the .npz that `charlm train` wrote; a text comes after it"),
        (("a" + "é" * 400).encode(), "a text"),
        (b"\x00\xff" * 99, "not a charlm model;"),
        (b"caf\xe9 au lait", "not a charlm model;"),
        (b"PK\x05\x06" + bytes(18), "not a charlm model;"),
        (b"PK\x03\x04", "damaged or cut short"),
    ],
)
def test_other_files_by_how_they_begin(tmp_path: Path, start: bytes, what: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(start)
    assert what in refusal(path)


def test_other_archives(tmp_path: Path) -> None:
    path = tmp_path / "file.npz"
    np.savez(path, w=np.zeros(3))
    assert "without a header" in refusal(path)
    write_zip(path, {"word/document.xml": b"<w/>"})
    assert "an archive with a member 'word/document.xml'" in refusal(path)


def test_every_truncation(model: Path) -> None:
    data = model.read_bytes()
    for length in range(0, len(data), 97):
        model.write_bytes(data[:length])
        refusal(model)
    model.write_bytes(data[:-1])
    refusal(model)


@pytest.mark.parametrize(
    "name", ["../w.npy", "/w.npy", "a/../w.npy", "C:\\w.npy", "a\\w.npy", "w", "w.npy/", "w\n.npy", ".npy", "é.npy"]
)
def test_names_with_tricks(model: Path, name: str) -> None:
    assert "an archive with a member" in refusal(with_member(model, name, npy(np.zeros(3))))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice(model: Path) -> None:
    with zipfile.ZipFile(model, "a") as archive:
        archive.writestr("ids.npy", npy(np.arange(11, dtype=np.uint16)))
    assert "holds 'ids' twice" in refusal(model)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members(model: Path, compression: int) -> None:
    write_zip(model, members_of(model), compression)
    assert "is compressed" in refusal(model)


def test_members_that_share_their_bytes(model: Path) -> None:
    """One member's bytes listed under many names: small on disk, large when read."""
    with zipfile.ZipFile(model, "a") as archive:
        embedding = archive.getinfo("layer0/w_h.npy")
        for i in range(100):
            twin = zipfile.ZipInfo(f"twin{i}.npy")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(twin, field, getattr(embedding, field))
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
        archive.comment = b"so that the directory is written anew"
    assert "would unpack to" in refusal(model)


def test_a_member_that_claims_to_be_larger_than_the_file(model: Path) -> None:
    with zipfile.ZipFile(model, "a") as archive:
        claim = archive.getinfo("embedding.npy")
        claim.file_size = claim.compress_size = 2**40
        archive.comment = b"so that the directory is written anew"
    assert "would unpack to 1,099,5" in refusal(model)


def test_a_shape_that_claims_more_than_the_member_holds(model: Path) -> None:
    """Refused before memory is set aside: this one would not fit."""
    header = header_of(model)
    header["arrays"]["embedding"]["shape"] = [2**40, 2**40, 2**40]
    with_header(model, header)
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40}, {2**40}, {2**40}), }}\n"
    assert "does not take the bytes" in refusal(with_member(model, "embedding.npy", npy_with(head)))


@pytest.mark.parametrize(
    "head",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1" * 9000 + "), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 9000 + "), }\n",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (4, 3), }\n",
        "{'descr': '>f4', 'fortran_order': False, 'shape': (4, 3), }\n",
        "{'descr': '<U4', 'fortran_order': False, 'shape': (4, 3), }\n",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4, 3), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -3), }\n",
        "{'shape': (4, 3), 'descr': '<f4', 'fortran_order': False, }\n",
        "(" * 9000,
        "__import__('os').abort()\n",
        "",
    ],
)
def test_a_head_that_numpy_would_not_have_written(model: Path, head: str) -> None:
    assert "'embedding' is" in refusal(with_member(model, "embedding.npy", npy_with(head)))


@pytest.mark.parametrize("data", [b"", b"\x93", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00\xff\xff\xff\xff", bytes(200)])
def test_no_head_at_all(model: Path, data: bytes) -> None:
    assert "'embedding' is not an array of plain numbers" in refusal(with_member(model, "embedding.npy", data))


def test_arrays_and_header_must_agree(model: Path) -> None:
    original = members_of(model)
    refused = {
        "is not in its header": {**original, "extra.npy": npy(np.zeros(3))},
        "is missing and its header names": {k: v for k, v in original.items() if k != "ids.npy"},
        "'ids' is uint16 (12,), the header declares uint16 (11,)": {
            **original,
            "ids.npy": npy(np.zeros(12, np.uint16)),
        },
        "'ids' is uint16 (11, 1), the": {**original, "ids.npy": npy(np.zeros((11, 1), np.uint16))},
        "'ids' is int16 (11,), the": {**original, "ids.npy": npy(np.zeros(11, np.int16))},
        "does not take the bytes": {**original, "ids.npy": original["ids.npy"] + b"\0"},
    }
    for message, content in refused.items():
        write_zip(model, content)
        assert message in refusal(model)
    write_zip(model, {k: v for k, v in original.items() if k in ("header.npy", "ids.npy")})
    assert "array 'embedding' (and 4 more) is missing" in refusal(model)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(model: Path, bad: float) -> None:
    array = ARRAYS["layer0/b"].copy()
    array[-1] = bad
    assert "'layer0/b' holds NaN or infinity" in refusal(with_member(model, "layer0/b.npy", npy(array)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"format": NaN}', "NaN is not JSON"),
        (b'{"format": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b'{"format": 9223372036854775808}', "9223372036854775808 is too large a number"),
        (b'{"format": [1e400]}', "1e400 is too large a number"),
        (b'{"format": -1e999}', "-1e999 is too large a number"),
        (b"[]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b"{}", "its format is None, not 'charlm-model'"),
        (b'{"format": "another"}', "its format is 'another', not 'charlm-model'"),
        (b'{"format": "' + b"x" * 999 + b'"}', "..., not 'charlm-model'"),
        (b'{"format": "charlm-model"}', "the header has no 'schema'"),
        (b'{"format": "charlm-model", "schema": 1}', "the header has no 'charlm'"),
        (b'{"format": "charlm-model", "schema": 1, "charlm": "1"}', "the header has no 'kind'"),
        (b'{"format": "charlm-model", "schema": 1, "charlm": "1", "kind": "model"}', "the header has no 'arrays'"),
    ],
)
def test_headers_that_are_none(model: Path, text: bytes, message: str) -> None:
    assert message in refusal(with_header(model, text))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema", "1", "'schema' in the header is str, not int"),
        ("schema", True, "'schema' in the header is bool, not int"),
        ("schema", 1.0, "'schema' in the header is float, not int"),
        ("schema", 0, "schema is 0, which never was"),
        ("charlm", 1, "'charlm' in the header is int, not str"),
        ("kind", 1, "'kind' in the header is int, not str"),
        ("kind", "training-state", "holds a training state, not a model; give the model"),
        ("kind", "cake", "holds 'cake', not a model"),
        ("arrays", [], "'arrays' in the header is list, not dict"),
        ("arrays", {"ids": 1}, "declares dtype None for 'ids'"),
        ("arrays", {"ids": {"shape": [1], "dtype": "object"}}, "declares dtype 'object' for 'ids'"),
        ("arrays", {"ids": {"shape": [1], "dtype": ["f4"]}}, "declares dtype ['f4'] for 'ids'"),
        ("arrays", {"ids": {"shape": 1, "dtype": "int8"}}, "declares shape 1 for 'ids'"),
        ("arrays", {"ids": {"shape": [-1], "dtype": "int8"}}, "declares shape [-1] for 'ids'"),
        ("arrays", {"ids": {"shape": [True], "dtype": "int8"}}, "declares shape [True] for 'ids'"),
        ("arrays", {"ids": {"shape": [1.0], "dtype": "int8"}}, "declares shape [1.0] for 'ids'"),
        ("arrays", {"../\n": {"shape": [1], "dtype": "int8"}}, "is missing"),
    ],
)
def test_header_fields(model: Path, key: str, value: Any, message: str) -> None:
    assert message in refusal(with_header(model, {**header_of(model), key: value}))


def test_a_newer_schema_says_how_to_upgrade(model: Path) -> None:
    newer = with_header(model, {**header_of(model), "schema": 2, "charlm": "9.9"})
    assert refusal(newer) == (
        f"{model}: written by charlm 9.9 with schema 2; this is charlm {__version__} with schema 1; "
        "upgrade with: pip install -U charlm"
    )


def test_a_header_too_large(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_header(model, {**header_of(model), "filler": "x" * 2**17})
    monkeypatch.setattr(checkpoint, "HEADER_LIMIT_BYTES", 100)
    assert "more than any model needs" in refusal(model)


def test_kinds_are_kept_apart(model: Path) -> None:
    assert "holds a model, not a training state; --resume" in refusal(model, kind="training-state")
    checkpoint.save(model, {}, {}, kind="training-state")
    assert "holds a training state, not a model" in refusal(model)
    assert checkpoint.load(model, kind="training-state").header["kind"] == "training-state"


@pytest.mark.parametrize("seed", range(200))
def test_damage_is_refused_or_makes_no_difference(model: Path, seed: int) -> None:
    """Any byte may change: what is loaded is what was saved, or nothing is."""
    random_ = random.Random(seed)
    data = bytearray(model.read_bytes())
    for _ in range(random_.choice([1, 1, 2, 8])):
        # Half of the time in the last part, where the archive's directory is.
        first = random_.choice([0, len(data) - 700])
        data[random_.randrange(first, len(data))] = random_.randrange(256)
    model.write_bytes(data)
    try:
        loaded = checkpoint.load(model)
    except CheckpointError:
        refusal(model)
    else:
        assert_same(loaded.arrays, ARRAYS)
        assert {key: loaded.header[key] for key in HEADER} == HEADER


# ---- what callers ask ----


def test_require() -> None:
    header = {"name": "lstm", "size": 5, "rate": 0.5, "tied": True, "part": {"depth": 1}, "none": None}
    assert checkpoint.require(header, "name", str, "m") == "lstm"
    assert checkpoint.require(header, "tied", bool, "m") is True
    assert checkpoint.require(header, "rate", float, "m") == 0.5
    size = checkpoint.require(header, "size", float, "m")
    assert (size, type(size)) == (5.0, float)
    assert checkpoint.require(checkpoint.require(header, "part", dict, "m"), "depth", int, "m") == 1
    for key, kind, message in (
        ("absent", int, "m: the header has no 'absent'; train it again"),
        ("none", int, "m: 'none' in the header is NoneType, not int; train it again"),
        ("tied", int, "m: 'tied' in the header is bool, not int"),
        ("tied", float, "m: 'tied' in the header is bool, not float"),
        ("rate", int, "m: 'rate' in the header is float, not int"),
    ):
        with pytest.raises(CheckpointError) as caught:
            checkpoint.require(header, key, kind, "m")
        assert str(caught.value).startswith(message)


def test_check_arrays() -> None:
    content = {"a": np.zeros((2, 3)), "b": np.zeros(4)}
    checkpoint.check_arrays(content, {"a": (2, 3), "b": (4,)}, "m")
    for expected, message in (
        ({"a": (2, 3)}, "m: array 'b' is not in its configuration; "),
        ({"a": (2, 3), "b": (4,), "c": (), "d": ()}, "m: array 'c' (and 1 more) is missing and its configuration"),
        ({"a": (3, 2), "b": (4,)}, "m: array 'a' has shape (2, 3), its configuration asks for (3, 2); "),
    ):
        with pytest.raises(CheckpointError) as caught:
            checkpoint.check_arrays(content, expected, "m")
        assert str(caught.value).startswith(message)
