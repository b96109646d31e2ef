"""Compiled kernels on disk, per user: where they lie, and one file for each.

Numba's own cache notices an edit of a kernel's file but not of a helper that the kernel calls from another file.
Therefore the folder's name holds a fingerprint of the whole engine and of the compiler, so that a stale kernel cannot
be found. Numba's also keeps an index beside the code: two processes that compile at once, perhaps on machines with
different processors and one home, may each give the same file's name to its own code, and the index then calls one by
the other's name. Here a file's name is a digest of all that the code depends on, the processor among it. There is no
index, and no lock is needed: a file is renamed into its place when it is whole, and one that was damaged later is not
believed. That processes which start together do not all compile the same is the business of ``turns``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config as numba_config
from numba.core import serialize

dumps: Any = serialize.dumps  # Numba's pickle, which knows its types

VARIABLE = "CHARLM_CACHE_DIR"
MAGIC = b"charlm kernel\n"
SUFFIX = ".kernel"
DAY = 24 * 3600.0  # seconds
UNUSED_DAYS = 30  # after which another version's kernels are removed
SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT")  # of Numba: they change code


def fingerprint() -> str:
    """A hash of every file of the engine, of the compiler's version and of Python's."""
    versions = f"{numba.__version__} {llvmlite.__version__} {sys.implementation.cache_tag}"
    digest = hashlib.sha256(versions.encode())
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _is_safe(path: Path) -> bool:
    """Whether nobody but this user (and root) can write into a folder: cached kernels are code."""
    if os.name != "posix":
        return True
    status = path.stat()
    return status.st_uid in (os.getuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_usable(path: Path) -> bool:
    """Make ``path``; true if it is this user's own, and can be written or holds kernels (of a container's image)."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        if not path.is_dir():
            return False
    try:
        return _is_safe(path) and (os.access(path, os.W_OK) or any(path.glob(f"*{SUFFIX}")))
    except OSError:
        return False


def _roots() -> Iterator[Path]:
    """Folders that may hold charlm's, in the order in which they are tried."""
    if os.environ.get(VARIABLE):
        yield Path(os.environ[VARIABLE])
    for name in ("XDG_CACHE_HOME", *(["LOCALAPPDATA"] if os.name == "nt" else [])):
        path = Path(os.environ.get(name, ""))
        if path.is_absolute():  # XDG's rule: others are to be ignored
            yield path
    home = os.path.expanduser("~")
    if home != "~":
        yield Path(home) / ".cache"
    try:
        temporary = tempfile.gettempdir()
    except OSError:  # none can be written
        return
    if Path(temporary) == Path.cwd():  # Python's last resort, and no place for a cache
        return
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    shared = Path(temporary) / f"charlm-{user}"  # its own parent is everybody's: it must be private too
    if _is_usable(shared):
        yield shared


def cache_folder() -> Path | None:
    """Where compiled kernels are kept, or None where nothing can be written."""
    name = Path("charlm") / f"kernels-{fingerprint()}"
    found = next((root / name for root in _roots() if _is_usable(root / name)), None)
    if found is not None:
        with contextlib.suppress(OSError):
            if time.time() - found.stat().st_mtime > DAY:
                os.utime(found)  # it is in use: see `remove_unused`
    return found


def keeps(folder: Path | None) -> bool:
    """Whether the kernels that are compiled now are kept for the next command."""
    return folder is not None and os.access(folder, os.W_OK)


def remark(folder: Path | None) -> str:
    """Why kernels are not kept, or not where the user wants them; empty if they are."""
    chosen = os.environ.get(VARIABLE)
    if folder is None or not keeps(folder):
        where = "no folder is writable and yours alone" if folder is None else f"{folder} cannot be written"
        return f"{where}; set {VARIABLE}" + (" to another" if chosen else "")
    if chosen and Path(chosen) not in folder.parents:
        return f"{VARIABLE} is {chosen}, which is not writable and yours alone; they are kept in {folder}"
    return ""


def remove_unused(folder: Path) -> None:
    """Remove the kernels of other versions that nobody has used for a month, and what a killed process has left."""
    now = time.time()
    with contextlib.suppress(OSError):  # another process does the same, or it may not be: nothing depends on it
        others = [path for path in folder.parent.iterdir() if re.fullmatch(r"kernels-[0-9a-f]{16}", path.name)]
        others = [path for path in others if path.name != folder.name and not path.is_symlink()]
        for path in others:
            if now - path.stat().st_mtime > UNUSED_DAYS * DAY:
                shutil.rmtree(path, ignore_errors=True)
        for path in folder.glob("*.tmp"):
            if now - path.stat().st_mtime > DAY:
                path.unlink()


def key_of(name: str, types: tuple[Any, ...], codegen: Any) -> str:
    """A digest of all that a kernel's code depends on besides the engine's and compiler's version.

    Args:
        name: the kernel's, with its module's.
        types: Numba's, of its arguments.
        codegen: the compiler's back end, which knows the processor's name and features.
    """
    settings = [getattr(numba_config, setting, None) for setting in SETTINGS]
    return hashlib.sha256(repr((name, types, codegen.magic_tuple(), settings)).encode()).hexdigest()[:32]


class KernelFile:
    """The code of one kernel for one tuple of types.

    Args:
        folder: of all kernels.
        name: what a person may recognise; the key is what counts.
    """

    def __init__(self, folder: Path, name: str, key: str) -> None:
        self.key = key
        self._path = folder / f"{name[:80]}-{key}{SUFFIX}"

    def read(self) -> Any:
        """What `write` was given; None if there is nothing, or something else than was written."""
        try:
            data = self._path.read_bytes()
        except OSError:
            return None
        start = len(MAGIC) + hashlib.sha256().digest_size
        if data[:start] != MAGIC + hashlib.sha256(data[start:]).digest():
            return None
        return pickle.loads(data[start:])

    def write(self, content: Any) -> bool:
        """Keep the content; false if it cannot be (a full disk, say): it will be compiled again another time."""
        data: bytes = dumps(content)
        folder, name = self._path.parent, self._path.name
        temporary: str | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(".tmp", f"{name[:20]}-", folder)
            with open(descriptor, "wb") as file:
                file.write(MAGIC + hashlib.sha256(data).digest() + data)
            os.replace(temporary, self._path)
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            return False
        return True
