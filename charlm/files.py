"""Writing a file so that it is there whole or not at all.

The content goes into a file beside the target, which replaces the target at the end. A reader finds the old file
or the new one, and so does whoever comes back after a crash or a power cut.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from charlm.errors import OutputError

PathLike = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[IO[bytes]]:
    """A file to write to, which replaces ``path`` at the end, or vanishes if anything fails.

    Args:
        path: a plain file, or what is to become one. A symbolic link is followed; permissions are kept.

    Raises:
        OutputError: as for ``check_writable``, or the operating system refuses while the file is written.
            The old file is untouched and nothing is left beside it.
    """
    with _one_line_errors(path):
        target = _target(path)
        temporary, file = _create_beside(target)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # or a power cut after the rename could leave an empty file
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
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

    Raises:
        OutputError: the folder is missing or not writable, or ``path`` is not a plain, writable file. One line:
            the path, what is wrong, what to do.
    """
    with _one_line_errors(path):
        temporary, file = _create_beside(_target(path))
        file.close()
        temporary.unlink()


def _error(path: PathLike, what: str, remedy: str) -> OutputError:
    return OutputError(f"{os.fspath(path) or repr('')}: {what}; {remedy}")


def _target(path: PathLike) -> Path:
    """The file that ``path`` stands for, symbolic links followed; raise if it cannot be replaced."""
    target = Path(os.path.realpath(path))
    name = os.fspath(path)
    try:
        mode = os.stat(name or os.curdir).st_mode  # of the path, for the target of /dev/stdout may have no name
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


def _create_beside(target: Path) -> tuple[Path, IO[bytes]]:
    """A new hidden file in the folder of ``target``, with the permissions that ``target`` has, if any."""
    temporary = target.parent / f".charlm-{os.urandom(6).hex()}.tmp"
    file = open(temporary, "xb")  # noqa: SIM115 -- the caller closes it
    with contextlib.suppress(OSError):
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
    return temporary, file


@contextlib.contextmanager
def _one_line_errors(path: PathLike) -> Iterator[None]:
    """Turn the operating system's errors in writing ``path`` into an OutputError."""
    try:
        yield
    except OSError as error:
        remedy = "free some space, or write to another folder"
        raise _error(path, f"cannot be written ({error.strerror or error})", remedy) from None
