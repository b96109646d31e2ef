"""Locks on files, by which processes keep out of each other's way.

They are the kernel's (`flock`): whoever dies, however it dies, holds none. Where the file system or the operating
system has no such locks, everything goes on without.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from charlm.errors import UnwritableError

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]

NO_LOCKS = -1
OWNER_BYTES = 200


def take(path: Path, *, create: bool = False) -> int:
    """Lock a file that no other process has locked.

    Args:
        path: the file.
        create: make it if there is none.

    Returns:
        A descriptor to be given to `release`; NO_LOCKS where there are no locks.

    Raises:
        BlockingIOError: another process holds the lock, or has removed the file.
        OSError: the file cannot be opened.
    """
    if fcntl is None:
        return NO_LOCKS
    while True:
        descriptor = _open(path, create)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_file_of(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:
            os.close(descriptor)
            return NO_LOCKS
        # Its holder removed it between opening and locking: this is the lock of a file that nobody can find.
        os.close(descriptor)
        if not create:
            raise BlockingIOError(f"{path} was removed")


def release(descriptor: int) -> None:
    """Give back what `take` returned."""
    if descriptor != NO_LOCKS:
        os.close(descriptor)


@contextlib.contextmanager
def only_training(path: str, remedy: str) -> Iterator[None]:
    """For the length of a block, no other training may write ``path``; the lock is a hidden file beside it.

    Args:
        path: the file, by whatever name: symbolic links are followed.
        remedy: what to do if another training writes it.

    Raises:
        UnwritableError: another training is writing it.
    """
    target = Path(os.path.realpath(path))
    lock = target.with_name(f".charlm-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}.lock")
    try:
        descriptor = take(lock, create=True)
    except BlockingIOError:
        owner = _owner(lock)
        raise UnwritableError(path, f"another training is writing it{owner and f' ({owner})'}", remedy) from None
    except PermissionError:
        if os.path.lexists(lock):  # another user's, who may hold it
            raise UnwritableError(path, f"{lock} is another user's", f"{remedy}, or remove that file") from None
        descriptor = NO_LOCKS
    except OSError:  # whether anything can be written there is found out, and told, elsewhere
        descriptor = NO_LOCKS
    if descriptor == NO_LOCKS:
        with contextlib.suppress(OSError):
            lock.unlink()  # made, and good for nothing
        yield
        return
    try:
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o644)  # so that another user finds it locked, whatever the umask
        with contextlib.suppress(OSError):  # a full disk: the text is for a message only
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
        yield
    finally:
        # Removed while it is locked; whoever has opened it by now finds that it is no longer there, and tries again.
        try:
            with contextlib.suppress(OSError):
                if _is_file_of(descriptor, lock):
                    lock.unlink()
        finally:
            release(descriptor)


def _open(path: Path, create: bool) -> int:
    """Open for locking. Some file systems want a lock's file open for writing; another user's may not be."""
    flags = os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    try:
        return os.open(path, os.O_RDWR | flags, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def _is_file_of(descriptor: int, path: Path) -> bool:
    """Whether a path leads to the file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _owner(lock: Path) -> str:
    """What the holder of a lock has written into it; empty if it has not yet."""
    try:
        with open(lock, "rb") as file:
            return file.read(OWNER_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        return ""
