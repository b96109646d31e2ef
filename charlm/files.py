"""Writing a file so that it is there whole or not at all.

The content goes into a file beside the target, which replaces the target at the end. A reader finds the old file
or the new one, and so does whoever comes back after a crash or a power cut.

The file beside it is hidden, `.charlm-FAMILY-RANDOM.tmp`, and locked as long as its writer lives. A writer that is
killed leaves it behind, unlocked; whoever next begins to write a file of the family removes it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from charlm import locks
from charlm.errors import UnwritableError

PathLike = str | os.PathLike[str]

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, or write to another folder"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "see whether it may be written to, or write to another folder"
    ),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its symbolic links lead in a circle; write to another file",
}


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[IO[bytes]]:
    """A file to write to, which replaces ``path`` at the end, or vanishes if anything fails.

    Args:
        path: a plain file, or what is to become one. A symbolic link is followed; permissions are kept.

    Raises:
        UnwritableError: as for ``check_writable``, or the operating system refuses while the file is written.
            The old file is untouched and nothing is left beside it.
    """
    with _one_line_errors(path):
        target = _target(path)
        with _file_beside(target) as (temporary, file):
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # or a power cut after the rename could leave an empty file
            os.replace(temporary, target)
    # The rename too should survive a power cut. Not every file system synchronises folders, and the file is
    # complete either way.
    with contextlib.suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_writable(path: PathLike) -> None:
    """Find out before long work whether ``path`` can be written, by writing beside it.

    What writers of its family that were killed have left beside it is removed.

    Raises:
        UnwritableError: the folder is missing or not writable, or ``path`` is not a plain, writable file. One line:
            the path, what is wrong, what to do.
    """
    with _one_line_errors(path):
        target = _target(path)
        _remove_leftovers(target)
        with _file_beside(target) as (temporary, file):
            file.close()
            temporary.unlink(missing_ok=True)


def _error(path: PathLike, what: str, remedy: str) -> UnwritableError:
    return UnwritableError(os.fspath(path), what, remedy)


def _target(path: PathLike) -> Path:
    """The file that ``path`` stands for, symbolic links followed; raise if it cannot be replaced."""
    target = Path(os.path.realpath(path))
    name = os.fspath(path)
    if not name:
        raise _error(path, "is no name of a file", "give one")
    try:
        mode = os.stat(name).st_mode  # of the path, for the target of /dev/stdout may have no name
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise _error(path, f"there is no folder {str(target.parent)!r}", "create it first") from None
        mode = stat.S_IFDIR if name.endswith(os.sep) else stat.S_IFREG
    else:
        if stat.S_ISREG(mode) and not os.access(target, os.W_OK):
            raise _error(path, "is write-protected", "make it writable or use another name")
    if stat.S_ISDIR(mode):
        raise _error(path, "is a folder", "add a file name")
    if not stat.S_ISREG(mode):  # to rename over a device such as /dev/null would destroy it
        raise _error(path, "is not a plain file", "give the name of one")
    return target


def _prefix(target: Path) -> str:
    """How the hidden files of a family begin: MODEL.npz, MODEL.resume.npz and whatever else begins with MODEL.

    Not with the name itself, which may be as long as a name can be.
    """
    family = os.fsencode(target.name.split(".")[0])
    return f".charlm-{hashlib.sha256(family).hexdigest()[:12]}-"


@contextlib.contextmanager
def _file_beside(target: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new hidden file in the folder of ``target``, with the permissions that ``target`` has, if any.

    It is locked to the end of the block, and gone by then unless it was renamed.
    """
    temporary, file, lock = _create_beside(target)
    try:
        with contextlib.suppress(OSError):
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        yield temporary, file
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        locks.release(lock)


def _create_beside(target: Path) -> tuple[Path, IO[bytes], int]:
    """The hidden file, and its lock: of a descriptor of its own, for the file is closed before it is renamed."""
    while True:
        temporary = target.parent / f"{_prefix(target)}{os.urandom(6).hex()}.tmp"
        file = open(temporary, "xb")  # noqa: SIM115 -- the caller closes it
        try:
            return temporary, file, locks.take(temporary)
        except BlockingIOError:  # someone took it for a leftover before it was locked, and removes it
            file.close()
        except BaseException:
            file.close()
            temporary.unlink(missing_ok=True)
            raise


def _remove_leftovers(target: Path) -> None:
    """Remove the hidden files of the family whose writers are dead; where there are no locks, none."""
    prefix = _prefix(target)
    with contextlib.suppress(OSError):  # a folder that may be written, not listed
        for name in os.listdir(target.parent):
            if name.startswith(prefix) and name.endswith(".tmp"):
                _remove_leftover(target.parent / name)


def _remove_leftover(path: Path) -> None:
    with contextlib.suppress(OSError):  # its writer lives, or another user's has left it
        lock = locks.take(path)
        try:
            if lock != locks.NO_LOCKS:
                path.unlink()
        finally:
            locks.release(lock)


@contextlib.contextmanager
def _one_line_errors(path: PathLike) -> Iterator[None]:
    """Turn the operating system's errors in writing ``path`` into an UnwritableError."""
    try:
        yield
    except OSError as error:
        remedy = REMEDIES.get(error.errno or 0, "write to another folder")
        raise _error(path, f"cannot be written ({error.strerror or error})", remedy) from None
