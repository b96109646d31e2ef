"""Where compiled kernels lie on disk: never stale, never a stranger's, never half a file, and not for ever."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from charlm.engine import kernel_cache
from charlm.engine.kernel_cache import KernelFile

ENGINE = Path(kernel_cache.__file__).parent
posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the engine that `fingerprint` looks at."""
    copy = tmp_path / "engine"
    shutil.copytree(ENGINE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(kernel_cache, "__file__", str(copy / "kernel_cache.py"))
    return copy


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Four folders that may hold the cache, in the order in which they are tried."""
    made = {name: tmp_path / name for name in ("CHARLM_CACHE_DIR", "XDG_CACHE_HOME", "HOME", "TEMP")}
    for name, folder in made.items():
        folder.mkdir()
        if name != "TEMP":
            monkeypatch.setenv(name, str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(made["TEMP"]))
    return made


def block(folder: Path) -> None:
    """Make it impossible to create anything in ``folder``, also for root: a file takes its place."""
    folder.rmdir()
    folder.write_text("")


# The fingerprint


def test_the_fingerprint_is_of_contents_not_of_places(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = kernel_cache.fingerprint()
    monkeypatch.setattr(kernel_cache, "__file__", str(ENGINE / "kernel_cache.py"))
    assert kernel_cache.fingerprint() == here
    folder = kernel_cache.cache_folder()
    assert folder is None or folder.name == f"kernels-{here}"


def test_any_edit_of_any_file_changes_the_fingerprint(engine: Path) -> None:
    seen = {kernel_cache.fingerprint()}
    files = sorted(engine.rglob("*.py"))
    assert len(files) >= 12
    for count, file in enumerate(files, start=2):
        file.write_text(file.read_text() + "\n")
        seen.add(kernel_cache.fingerprint())
        assert len(seen) == count, file


def test_a_new_a_removed_and_a_renamed_file_change_the_fingerprint(engine: Path) -> None:
    before = kernel_cache.fingerprint()
    new = engine / "cells" / "new.py"
    new.write_text("")
    with_new = kernel_cache.fingerprint()
    new.rename(engine / "cells" / "other.py")
    renamed = kernel_cache.fingerprint()
    assert len({before, with_new, renamed}) == 3
    (engine / "cells" / "other.py").unlink()
    assert kernel_cache.fingerprint() == before


def test_the_compiler_is_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = kernel_cache.fingerprint()
    monkeypatch.setattr(kernel_cache.numba, "__version__", "0.0.1")
    assert kernel_cache.fingerprint() != before


# The folder


@posix
def test_folders_are_tried_in_turn(roots: dict[str, Path]) -> None:
    name = Path("charlm") / f"kernels-{kernel_cache.fingerprint()}"
    user = f"charlm-{os.getuid()}"
    expected = {
        "CHARLM_CACHE_DIR": roots["CHARLM_CACHE_DIR"] / name,
        "XDG_CACHE_HOME": roots["XDG_CACHE_HOME"] / name,
        "HOME": roots["HOME"] / ".cache" / name,
        "TEMP": roots["TEMP"] / user / name,
    }
    for variable, folder in expected.items():
        assert kernel_cache.cache_folder() == folder
        assert folder.is_dir()
        shutil.rmtree(roots[variable])
        roots[variable].mkdir()
        block(roots[variable])
    assert kernel_cache.cache_folder() is None


@posix
@pytest.mark.parametrize("unusable", ["", "relative/cache"])
def test_variables_that_are_not_set_are_passed_over(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch, unusable: str
) -> None:
    monkeypatch.delenv("CHARLM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", unusable)
    folder = kernel_cache.cache_folder()
    assert folder is not None
    assert folder.is_relative_to(roots["HOME"] / ".cache")


@posix
def test_a_new_folder_is_the_users_alone(roots: dict[str, Path]) -> None:
    folder = kernel_cache.cache_folder()
    assert folder is not None
    assert folder.stat().st_mode & 0o777 == 0o700


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_into_is_refused(roots: dict[str, Path], mode: int) -> None:
    folder = kernel_cache.cache_folder()
    assert folder is not None
    folder.chmod(mode)
    other = kernel_cache.cache_folder()
    assert other is not None
    assert other.is_relative_to(roots["XDG_CACHE_HOME"])


@posix
def test_a_strangers_folder_is_refused(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = kernel_cache.cache_folder()
    assert folder is not None
    if os.getuid() == 0:
        os.chown(folder, 4321, -1)
    else:
        stranger = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: stranger)
    other = kernel_cache.cache_folder()
    assert other is None or other.is_relative_to(roots["XDG_CACHE_HOME"])


@posix
def test_kernels_that_an_image_holds_are_read_where_nothing_can_be_written(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = kernel_cache.cache_folder()
    assert folder is not None
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(roots["CHARLM_CACHE_DIR"]))
    other = kernel_cache.cache_folder()
    assert other is not None
    assert other.is_relative_to(roots["XDG_CACHE_HOME"])
    assert KernelFile(folder, "kernel", "key").write(1)
    assert kernel_cache.cache_folder() == folder
    assert not kernel_cache.keeps(folder)
    assert kernel_cache.remark(folder) == f"{folder} cannot be written; set CHARLM_CACHE_DIR to another"
    monkeypatch.delenv("CHARLM_CACHE_DIR")
    assert kernel_cache.remark(folder) == f"{folder} cannot be written; set CHARLM_CACHE_DIR"
    assert kernel_cache.keeps(other)
    assert kernel_cache.remark(other) == ""


def test_a_chosen_folder_that_is_passed_over_is_told(roots: dict[str, Path]) -> None:
    chosen = kernel_cache.cache_folder()
    assert kernel_cache.remark(chosen) == ""
    assert chosen is not None
    shutil.rmtree(roots["CHARLM_CACHE_DIR"])
    roots["CHARLM_CACHE_DIR"].write_text("")
    other = kernel_cache.cache_folder()
    assert kernel_cache.keeps(other)
    remark = f"CHARLM_CACHE_DIR is {roots['CHARLM_CACHE_DIR']}, which is not writable and yours alone; they are kept in"
    assert kernel_cache.remark(other) == f"{remark} {other}"


def test_the_working_folder_is_no_cache(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Python takes it for temporary files when nothing else can be written."""
    for name in ("CHARLM_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        block(roots[name])
    monkeypatch.chdir(roots["TEMP"])
    assert kernel_cache.cache_folder() is None
    assert list(roots["TEMP"].iterdir()) == []
    assert kernel_cache.remark(None) == "no folder is writable and yours alone; set CHARLM_CACHE_DIR to another"


def test_other_versions_kernels_go_when_nobody_has_used_them_for_a_month(tmp_path: Path) -> None:
    now, day = time.time(), 24 * 3600
    own, old, young = (tmp_path / f"kernels-{letter * 16}" for letter in "abc")
    link, other = tmp_path / f"kernels-{'d' * 16}", tmp_path / "kernels-of-somebody"
    for folder in (own, old, young, other):
        folder.mkdir()
        (folder / "inside").write_text("")
    link.symlink_to(other)
    left, used = own / "x.tmp", own / "y.tmp"
    for file in (left, used):
        file.write_text("")
    os.utime(left, (now - 2 * day,) * 2)
    for folder, days in ((own, 99), (old, 31), (young, 29), (other, 99)):
        os.utime(folder, (now - days * day,) * 2)
    kernel_cache.remove_unused(own)
    assert sorted(tmp_path.iterdir()) == sorted([own, young, link, other])
    assert sorted(path.name for path in own.iterdir()) == ["inside", "y.tmp"]
    kernel_cache.remove_unused(tmp_path / "nowhere" / own.name)


def test_a_folder_in_use_stays_young(roots: dict[str, Path]) -> None:
    folder = kernel_cache.cache_folder()
    assert folder is not None
    now = time.time()
    os.utime(folder, (now - 1e7,) * 2)
    assert kernel_cache.cache_folder() == folder
    assert folder.stat().st_mtime > now - 60


# One kernel's file


def test_what_was_written_is_read(tmp_path: Path) -> None:
    file = KernelFile(tmp_path / "new", "kernel", "key")
    assert file.read() is None
    for content in (b"\0" * 1000, [1, 2]):
        assert file.write(content)
        assert file.read() == content
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_a_damaged_file_is_not_believed(tmp_path: Path) -> None:
    """Cut off, as by a full disk; a bit turned over; zeros, as after a crash; something else altogether."""
    file = KernelFile(tmp_path, "kernel", "key")
    assert file.write({"code": b"code"})
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1 :] for i in range(len(whole))]
    damaged += [bytes(len(whole)), b"something else", whole + b"\0"]
    for data in damaged:
        path.write_bytes(data)
        assert file.read() is None
    assert file.write(1)
    assert file.read() == 1


@pytest.mark.parametrize("step", ["mkdir", "mkstemp", "replace"])
def test_what_cannot_be_written_is_no_error(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place: dict[str, Any] = {"mkdir": Path, "mkstemp": tempfile, "replace": os}
    with monkeypatch.context() as context:
        context.setattr(place[step], step, fail)
        assert not KernelFile(tmp_path, "kernel", "key").write(1)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_sees_whole_files_only(tmp_path: Path) -> None:
    """Two writers of one kernel at once, as of two processes with an empty cache."""
    contents = [bytes([i]) * 100_000 for i in range(2)]
    files = [KernelFile(tmp_path, "kernel", "key") for _ in range(2)]
    assert files[0].write(contents[0])

    def write(i: int) -> None:
        for _ in range(50):
            assert files[i].write(contents[i])

    threads = [threading.Thread(target=write, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert files[0].read() in contents
    assert len(list(tmp_path.iterdir())) == 1


class Codegen:
    """Stands for the compiler's back end."""

    def __init__(self, *machine: str) -> None:
        self.machine = machine

    def magic_tuple(self) -> tuple[str, ...]:
        return self.machine


def test_kernels_of_other_names_types_processors_and_settings_have_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(name: str = "multiply", kinds: Any = ("float32",), machine: Any = ("x86_64", "znver5", "+avx512f")) -> str:
        return kernel_cache.key_of(name, kinds, Codegen(*machine))

    keys = [
        key(), key("pack"), key(kinds=("float64",)), key(kinds=("float32", "float32")),
        key(machine=("x86_64", "znver5", "-avx512f")), key(machine=("x86_64", "haswell", "+avx512f")),
        key(machine=("aarch64", "znver5", "+avx512f")),
    ]  # fmt: skip
    monkeypatch.setattr(kernel_cache.numba_config, "OPT", 0)
    keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == keys[-1]
