"""Locks: who holds one keeps others out, also when the file is removed and made anew; who dies holds none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from charlm import files, locks
from charlm.errors import OutputError

pytest.importorskip("fcntl")
ROOT = Path(__file__).parents[1]
HIDDEN = ".charlm-*"


def refusal(path: Path | str) -> str:
    with pytest.raises(OutputError) as caught, locks.only_training(str(path), "wait for it"):
        pass
    return str(caught.value)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "m.npz"


def holding(statements: str, folder: Path) -> subprocess.Popen[bytes]:
    """A process that has run the statements, and waits."""
    code = f"from charlm import files, locks\nimport sys\n{statements}\n  print(flush=True)\n  sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"\n"
    return process


@pytest.fixture
def training(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with holding("with locks.only_training('m.npz', ''):", tmp_path) as process:
        yield process
        process.kill()


def test_another_training_is_refused_by_any_name(
    training: subprocess.Popen[bytes], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = model.with_name("link.npz")
    link.symlink_to("m.npz")
    monkeypatch.chdir(model.parent)
    for path in (model, "m.npz", "./m.npz", link, f"../{model.parent.name}/m.npz"):
        owner = f"process {training.pid} on {os.uname().nodename}"
        assert refusal(path) == f"{path}: another training is writing it ({owner}); wait for it"
    with locks.only_training("n.npz", ""):
        pass


def test_who_is_killed_holds_no_lock(training: subprocess.Popen[bytes], model: Path) -> None:
    training.kill()
    training.wait()
    assert len(list(model.parent.glob(HIDDEN))) == 1
    with locks.only_training(str(model), ""):
        assert f"process {os.getpid()} on " in refusal(model)
    assert not list(model.parent.glob(HIDDEN))


def test_a_lock_ends_with_its_block(model: Path) -> None:
    with pytest.raises(ValueError, match="odd"), locks.only_training(str(model), ""):
        raise ValueError("odd")
    with locks.only_training(str(model), ""):
        pass
    assert not list(model.parent.iterdir())


def test_removing_and_making_the_file_lets_no_two_in(model: Path) -> None:
    inside, entered, met = [], [0] * 4, []

    def enter(number: int) -> None:
        while entered[number] < 50:
            try:
                with locks.only_training(str(model), ""):
                    inside.append(number)
                    met.append(len(inside))
                    inside.remove(number)
                entered[number] += 1
            except OutputError:
                pass

    threads = [threading.Thread(target=enter, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(met) == {1}
    assert entered == [50] * 4


def test_a_lock_that_is_removed_while_it_is_opened_is_none(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    first, flock = ExitStack(), fcntl.flock
    first.enter_context(locks.only_training(str(model), ""))

    def flock_late(descriptor: int, operation: int) -> None:
        first.close()  # the first training ends just now, and removes the file that is open here
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_late)
    with locks.only_training(str(model), ""):
        monkeypatch.undo()
        assert "another training is writing it" in refusal(model)


def test_a_link_in_place_of_the_lock_is_not_followed(model: Path) -> None:
    with locks.only_training(str(model), ""):
        (lock,) = model.parent.glob(HIDDEN)
    model.write_bytes(b"precious")
    lock.symlink_to("m.npz")
    with locks.only_training(str(model), ""):
        pass
    assert model.read_bytes() == b"precious"


@pytest.mark.parametrize("missing", ["fcntl", "flock"])
def test_without_locks_all_goes_on(model: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    if missing == "fcntl":
        monkeypatch.setattr(locks, "fcntl", None)
    else:

        def refuse(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr("fcntl.flock", refuse)
    leftover = model.with_name(f"{files._prefix(model)}0123456789ab.tmp")
    leftover.touch()
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(locks.only_training(str(model), ""))
        files.check_writable(model)
        with files.replacing(model) as file:
            file.write(b"new")
    assert model.read_bytes() == b"new"
    # Nobody can tell whether the writer of that one lives.
    assert {path.name for path in model.parent.iterdir()} == {"m.npz", leftover.name}


# ---- temporary files ----


def test_what_a_killed_writer_left_is_removed_by_the_next_of_its_family(model: Path) -> None:
    with holding("with files.replacing('m.resume.npz') as file:", model.parent) as writer:
        (temporary,) = model.parent.glob(HIDDEN)
        files.check_writable(model)
        assert temporary.exists()  # its writer lives
        writer.kill()
        writer.wait()
        files.check_writable(model.with_name("other.npz"))
        assert temporary.exists()  # not of this family
        files.check_writable(model)
        assert not list(model.parent.iterdir())


def test_a_file_that_another_takes_for_a_leftover_is_made_anew(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its making and its locking another process may have locked it, to remove it."""
    take, taken = locks.take, []

    def meet(path: Path, *, create: bool = False) -> int:
        if not taken:
            taken.append(take(path))
            raise BlockingIOError
        return take(path, create=create)

    monkeypatch.setattr(locks, "take", meet)
    with files.replacing(model) as file:
        file.write(b"new")
    locks.release(taken[0])
    monkeypatch.undo()
    assert model.read_bytes() == b"new"
    files.check_writable(model)
    assert list(model.parent.iterdir()) == [model]


def test_another_users_lock_is_not_removed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locks.only_training(str(model), ""):
        (lock,) = model.parent.glob(HIDDEN)
        assert lock.stat().st_mode & 0o777 == 0o644

        def refuse(path: Path, create: bool) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(locks, "_open", refuse)
        assert f"{lock} is another user's; wait for it, or remove that file" in refusal(model)
        assert lock.exists()
