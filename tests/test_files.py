from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from charlm.errors import OutputError
from charlm.files import check_writable, replacing


def write(path: str | Path, data: bytes = b"new") -> None:
    with replacing(path) as file:
        file.write(data)


both = pytest.mark.parametrize("function", [check_writable, write])


def refusal(function: Callable[[str], None], path: str | Path) -> str:
    """The message with which a path is refused: one line, beginning with the path, with a remedy."""
    with pytest.raises(OutputError) as caught:
        function(str(path))
    message = str(caught.value)
    assert message.startswith(f"{str(path) or repr('')}: ")
    assert "\n" not in message
    assert "; " in message
    assert caught.value.exit_code == 1
    return message


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "model.npz"
    path.write_bytes(b"old")
    return path


@pytest.mark.parametrize("name", ["model.npz", "new", "é \n"])
def test_the_file_is_there_at_the_end_and_not_before(old: Path, name: str) -> None:
    path = old.with_name(name)
    before = path.read_bytes() if path.exists() else None
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert (path.read_bytes() if path.exists() else None) == before
        assert len(list(old.parent.iterdir())) == 2
    assert file.closed
    assert path.read_bytes() == b"new"
    assert set(old.parent.iterdir()) == {old, path}


def test_a_name_without_a_folder(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(old.parent)
    check_writable("model.npz")
    write("model.npz")
    assert old.read_bytes() == b"new"


def test_the_file_can_be_sought(old: Path) -> None:
    with replacing(old) as file:
        file.write(b"abc")
        file.seek(1)
        file.write(b"x")
    assert old.read_bytes() == b"axc"


def test_many_at_once_leave_one_whole_file(old: Path) -> None:
    contents = [bytes([65 + i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write, args=(old, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert old.read_bytes() in contents
    assert list(old.parent.iterdir()) == [old]


# ---- what fails ----


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    old: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        write(old)
    monkeypatch.undo()
    if isinstance(error, OSError):
        assert str(caught.value).startswith(f"{old}: cannot be written (No space left on device); free some space")
    assert old.read_bytes() == b"old"
    assert list(old.parent.iterdir()) == [old]


@pytest.mark.parametrize("error", [ValueError("odd"), KeyboardInterrupt(), GeneratorExit()])
def test_a_failure_of_the_writer_leaves_the_old_file_and_is_passed_on(old: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, replacing(old) as file:  # noqa: PT012 -- what is written matters
        file.write(b"new")
        raise error
    assert caught.value is error
    assert old.read_bytes() == b"old"
    assert list(old.parent.iterdir()) == [old]


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 64 KiB."""
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.mark.usefixtures("small_disk")
@pytest.mark.parametrize("size", [2**16 + 1, 2**20])
def test_a_write_that_stops_half_way_leaves_the_old_file(old: Path, size: int) -> None:
    with pytest.raises(OutputError, match="File too large"):
        write(old, bytes(size))
    assert old.read_bytes() == b"old"
    assert list(old.parent.iterdir()) == [old]


def test_file_and_folder_reach_the_disk_before_and_after_the_rename(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        state = os.fstat(descriptor)
        calls.append("folder" if stat.S_ISDIR(state.st_mode) else f"file of {state.st_size}")
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        assert source.parent == target.parent
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write(old, b"12345")
    assert calls == ["file of 5", "rename", "folder"]


def test_a_folder_that_cannot_be_synchronised_is_no_failure(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write(old)
    assert old.read_bytes() == b"new"


# ---- permissions and links ----


@pytest.mark.skipif(os.name != "posix", reason="permissions and links as POSIX has them")
def test_permissions_and_links_survive(old: Path) -> None:
    umask = os.umask(0o027)
    try:
        fresh = old.with_name("fresh.npz")
        write(fresh)
        assert stat.S_IMODE(fresh.stat().st_mode) == 0o640
    finally:
        os.umask(umask)
    old.chmod(0o604)
    link = old.with_name("link.npz")
    link.symlink_to(old.name)
    check_writable(link)
    write(link, b"through the link")
    assert link.is_symlink()
    assert old.read_bytes() == b"through the link"
    assert stat.S_IMODE(old.stat().st_mode) == 0o604


@pytest.mark.skipif(os.name != "posix", reason="links as POSIX has them")
def test_a_link_to_nothing_yet(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("target")
    write(link)
    assert link.is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


# ---- what is refused ----


def test_check_writable_leaves_no_trace(old: Path) -> None:
    check_writable(old)
    check_writable(str(old.with_name("new.npz")))
    assert old.read_bytes() == b"old"
    assert list(old.parent.iterdir()) == [old]


@both
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no/such/m.npz", "there is no folder '{folder}/no/such'; create it first"),
        ("new/", "is a folder; add a file name"),
        (".", "is a folder; add a file name"),
        ("model.npz/m.npz", "cannot be written (Not a directory)"),
        ("model.npz/", "cannot be written (Not a directory)"),
        ("x" * 300, "cannot be written (File name too long); choose a shorter name"),
        ("loop", "cannot be written (Too many levels of symbolic links); its symbolic links lead in a circle"),
    ],
)
def test_a_target_that_cannot_be_written(old: Path, name: str, message: str, function: Callable[[str], None]) -> None:
    loop = old.with_name("loop")
    loop.symlink_to("loop")
    assert message.format(folder=old.parent) in refusal(function, f"{old.parent}/{name}")
    assert old.read_bytes() == b"old"
    assert set(old.parent.iterdir()) == {old, loop}


@both
def test_no_name(function: Callable[[str], None]) -> None:
    assert refusal(function, "") == "'': is no name of a file; give one"


@both
def test_a_device_or_a_pipe_is_not_replaced_by_a_file(tmp_path: Path, function: Callable[[str], None]) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    link = tmp_path / "link"
    link.symlink_to("fifo")
    for path in (fifo, link, os.devnull):
        assert "is not a plain file; give the name of one" in refusal(function, path)
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@both
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_pipe_that_has_no_name(function: Callable[[str], None]) -> None:
    reader, writer = os.pipe()
    try:
        assert "is not a plain file" in refusal(function, f"/proc/self/fd/{writer}")
    finally:
        os.close(reader)
        os.close(writer)


@both
def test_a_protected_file_stays(old: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[[str], None]) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anything
    assert "is write-protected; make it writable or use another name" in refusal(function, old)
    assert old.read_bytes() == b"old"


@both
def test_a_folder_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Callable[[str], None]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert "cannot be written (Permission denied)" in refusal(function, tmp_path / "m.npz")
