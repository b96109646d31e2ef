import gzip
import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.errors import InputError
from charlm.text import readers
from charlm.text.readers import read_blocks, read_lines
from tests.pipe import Pipe

BOM = b"\xef\xbb\xbf"
pieces = st.lists(
    st.sampled_from([b"a", b"\r", b"\n", b"\r\n", "é".encode(), "😀".encode(), b" ", b"\0", b"\xff", BOM])
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers") / "text"


def read(path: Path, **options: object) -> str:
    return "".join(read_blocks(str(path), **options))  # type: ignore[arg-type]


def failure(path: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (BOM, ""),
        (BOM + b"a\n", "a\n"),
        (BOM + BOM + b"a", "\ufeffa"),
        (b"a\r\nb\rc\n\rd", "a\nb\nc\n\nd"),
        (b"a\r\r\n\nb\r", "a\n\n\nb\n"),
        ("e\u0301😀👩‍👧\u2028".encode(), "e\u0301😀👩‍👧\u2028"),
        (b"\x1a\x0c\x85".replace(b"\x85", "\x85".encode()), "\x1a\x0c\x85"),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 2, 3, 1 << 20])
def test_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, text: str, block_bytes: int) -> None:
    monkeypatch.setattr(readers, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "text"
    path.write_bytes(data)
    assert read(path) == text


def test_place_of_a_byte_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    head = BOM + "Zürich\r\n".encode() * 400_000 + b"line\rline\n"  # several blocks
    path.write_bytes(head + b"caf\xe9\nmore")
    assert f"byte 0xe9 at offset {len(head) + 3}, line 400003; " in failure(path)
    assert failure(path).endswith("convert it with iconv -f LATIN1 -t UTF-8 (or what it is in)")
    assert failure(path, any_level=True).endswith("(or what it is in), or use --level byte")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (readers.TOKENS_MAGIC + b"{}\n\0\0", "is a token file, and the text itself is wanted here; give that"),
        (b"PK\x03\x04\0\0", "is a model or another zip archive, not a text"),
    ],
)
def test_what_charlm_writes_itself_is_told(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "no text"
    path.write_bytes(data)
    assert failure(path).endswith(f"{path}: {what}")


@pytest.mark.parametrize("data", [b"ab\xc3", b"ab\xed\xa0\x80", b"ab\xc0\x80", b"ab\xf5\x80\x80\x80"])
def test_strict_utf8(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "text"
    path.write_bytes(data)
    assert f"byte 0x{data[2]:02x} at offset 2, line 1" in failure(path)


def test_nul_bytes_look_binary(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"x\n" * 1_000_000 + b"ab\0\xff")
    looks = "looks binary, with a NUL byte at offset 2000002, line 1000001"
    assert f"{looks}; give a text file" in failure(path)
    assert f"{looks}; use --level byte" in failure(path, any_level=True)
    assert read(path, encoding="latin-1").encode("latin-1") == path.read_bytes()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-32-be"])
def test_other_unicode_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "text"
    path.write_bytes("\ufeffhello\n".encode(encoding) if encoding[-2:] == "be" else "hello\n".encode(encoding))
    name = encoding[:6].upper()
    assert f"is {name}, not UTF-8; convert it with iconv -f {name} -t UTF-8" in failure(path)


def test_no_such_file_and_folder(tmp_path: Path) -> None:
    assert "no such file" in failure(tmp_path / "none")
    assert "is a folder" in failure(tmp_path)


def test_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert "not readable; check its permissions" in failure(tmp_path / "x")


def test_other_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("builtins.open", refuse)
    assert "cannot be read (Input/output error)" in failure(tmp_path / "x")


def test_gzip_by_name(tmp_path: Path) -> None:
    path = tmp_path / "text.gz"
    text = "naïve\r\n" * 50_000
    path.write_bytes(gzip.compress(text.encode()) + gzip.compress(b"second member"))
    assert read(path) == text.replace("\r\n", "\n") + "second member"


@pytest.mark.parametrize("damage", ["cut", "flip", "plain"])
def test_damaged_gzip(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "text.gz"
    data = bytearray(gzip.compress(bytes(range(1, 128)) * 2000))
    if damage == "cut":
        del data[-20:]
    elif damage == "flip":
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(data if damage != "plain" else b"not packed at all")
    assert "damaged or cut short" in failure(path)


def blocks_until_error(path: Path, message: str, **options: object) -> list[str]:
    blocks = []
    with pytest.raises(InputError, match=message):  # noqa: PT012
        for block in read_blocks(str(path), **options):  # type: ignore[arg-type]
            blocks.append(block)
    return blocks


@pytest.mark.parametrize(
    ("data", "message", "text"),
    [
        (b"a\nb\xe9\nc\n", "offset 3, line 2;", "a\n"),
        (b"a\r\nb\r\xe9", "offset 5, line 3;", "a\nb\n"),
        (b"a\nb\0\nc", "NUL byte at offset 3, line 2;", "a\n"),
        (b"a\nb\n\xe9\0\n", "NUL byte at offset 5, line 3;", "a\nb\n"),
        (b"a\nb\n\0\xe9\n", "NUL byte at offset 4, line 3;", "a\nb\n"),
        (BOM + b"a\n\xff", "offset 5, line 2;", "a\n"),
        (BOM + b"\xff\na\n", "offset 3, line 1;", ""),
    ],
)
def test_whole_lines_before_a_fault_come_before_its_error(tmp_path: Path, data: bytes, message: str, text: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(data)
    assert "".join(blocks_until_error(path, message)) == text


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
def test_gzip_cut_short_gives_its_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, end: str, block_bytes: int
) -> None:
    monkeypatch.setattr(readers, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "text.gz"
    text = "".join(f"line {number}{end}" for number in range(300))
    path.write_bytes(gzip.compress(text.encode())[:-20])
    found = "".join(blocks_until_error(path, "cut short", encoding=encoding))
    if encoding == "utf-8":
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\n" in text:
        assert len(found) > 1000
    assert found == text[: len(found)]
    assert found[-1:] in ("", "\n")


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é\r\nb".encode()), encoding="ascii"))
    assert list(read_lines("-")) == ["é", "b"]
    assert not sys.stdin.buffer.closed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    with pytest.raises(InputError, match=r"^standard input: not UTF-8"):
        list(read_lines("-"))


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="is closed"):
        list(read_lines("-"))


def test_lines_of_a_pipe_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = Pipe(b"line\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(pipe)))
    lines = read_lines("-")
    assert [next(lines), pipe.asked, next(lines), pipe.asked] == ["line", 1, "line", 2]


@pytest.mark.parametrize(
    ("data", "lines"),
    [(b"", []), (b"\n", [""]), (b"a", ["a"]), (b"a\n\nb\n", ["a", "", "b"]), (b"\n\na", ["", "", "a"])],
)
@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, lines: list[str], block_bytes: int
) -> None:
    monkeypatch.setattr(readers, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "text"
    path.write_bytes(data)
    assert list(read_lines(str(path))) == lines


def test_memory_is_bounded_by_blocks_and_a_long_line_is_one(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"short\n" * 1_000_000)
    sizes = [len(block) for block in read_blocks(str(path))]
    assert max(sizes) <= readers.BLOCK_BYTES + len("short\n")
    path.write_bytes(b"first\n" + b"x" * 5_000_000 + b"\nlast")
    assert [len(line) for line in read_lines(str(path))] == [5, 5_000_000, 4]


def test_observer_sees_every_unpacked_byte(tmp_path: Path) -> None:
    path = tmp_path / "text.gz"
    data = BOM + b"a\r\nb" * 400_000
    path.write_bytes(gzip.compress(data))
    digest = hashlib.sha256()
    read(path, observe=digest.update)
    assert digest.digest() == hashlib.sha256(data).digest()


def place_of_error(data: bytes) -> str:
    """What the message about these bytes must say, nothing if they are a text."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return ", not UTF-8; convert it"
    if data.startswith(readers.GZIP_MAGIC):
        return "is packed with gzip"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if b"\0" in data:
            return ": "  # which of the two is met first depends on the blocks
        line = len(data[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
        return f"at offset {error.start}, line {line};"
    return f"a NUL byte at offset {data.index(0)}, line " if b"\0" in data else ""


@settings(deadline=None)
@given(data=st.one_of(st.binary(), pieces.map(b"".join)), block_bytes=st.integers(1, 9))
@example(data=readers.GZIP_MAGIC, block_bytes=1)
def test_arbitrary_bytes(scratch: Path, data: bytes, block_bytes: int) -> None:
    scratch.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "BLOCK_BYTES", block_bytes)
        assert read(scratch, encoding="latin-1", whole_lines=False).encode("latin-1") == data
        blocks = list(read_blocks(str(scratch), encoding="latin-1"))
        assert "".join(blocks).encode("latin-1") == data
        assert all(block.endswith("\n") for block in blocks[:-1])
        expected = data.decode("utf-8", "replace").removeprefix("\ufeff")
        expected = expected.replace("\r\n", "\n").replace("\r", "\n")
        place = place_of_error(data)
        if place:
            with pytest.raises(InputError, match=re.escape(place)):
                read(scratch)
            return
        blocks = list(read_blocks(str(scratch)))
        assert "".join(blocks) == expected
        assert all(block.endswith("\n") for block in blocks[:-1])
        assert list(read_lines(str(scratch))) == (expected.removesuffix("\n").split("\n") if expected else [])


@settings(deadline=None)
@given(st.binary())
def test_arbitrary_bytes_called_gzip(scratch: Path, data: bytes) -> None:
    path = scratch.with_name("text.gz")
    path.write_bytes(data)
    if data:
        with pytest.raises(InputError):
            read(path)
    path.write_bytes(gzip.compress(data, 1)[:-1])
    with pytest.raises(InputError):
        read(path)
