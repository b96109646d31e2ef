"""The one decorator of every compiled function, and all of Numba's flags.

Compiled kernels are cached on disk, per user. Numba notices an edit of a kernel's own file but not of a helper that
the kernel calls from another file; therefore the cache folder's name holds a fingerprint of the whole engine and of
the compiler, so that a stale kernel cannot be found.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite
import numba
from llvmlite import binding
from numba.core import config as numba_config
from numba.core import event

config: Any = numba_config  # its options are made at run time
Function = TypeVar("Function", bound=Callable[..., Any])

# No nnan and no ninf: a NaN must stay visible. No reassoc: the sums of a run must not depend on the compiler's mood.
FAST_MATH = {"contract", "nsz", "arcp"}


def _features() -> frozenset[str]:
    """Names of the vector features that kernels are compiled for."""
    if config.CPU_FEATURES is not None:  # NUMBA_CPU_FEATURES, e.g. to try narrower vectors
        return frozenset(f[1:] for f in config.CPU_FEATURES.split(",") if f.startswith("+"))
    return frozenset(name for name, present in binding.get_host_cpu_features().items() if present)


FEATURES = _features()
IS_X86 = binding.get_process_triple().startswith(("x86", "i386", "i686"))
HAS_FMA = "fma" in FEATURES or not IS_X86
if "avx512f" in FEATURES:
    VECTOR_BYTES, VECTOR_REGISTERS = 64, 32
elif "avx" in FEATURES:
    VECTOR_BYTES, VECTOR_REGISTERS = 32, 16
else:
    VECTOR_BYTES, VECTOR_REGISTERS = 16, 16 if IS_X86 else 32


def fingerprint() -> str:
    """A hash of every file of the engine and of the compiler's version."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _private_folder(path: Path) -> bool:
    """Make ``path``; true if it is writable and nobody else can write into it (cached kernels are code)."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError:
        return False
    owned = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    shared = os.name == "posix" and bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return owned and not shared and os.access(path, os.W_OK)


def cache_folder() -> Path | None:
    """Where compiled kernels are kept, or None where nothing is writable."""
    name = Path("charlm") / f"kernels-{fingerprint()}"
    roots = [os.environ.get("CHARLM_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")]
    if os.name == "nt":
        roots.append(os.environ.get("LOCALAPPDATA"))
    candidates = [Path(root) for root in roots if root]
    home = os.path.expanduser("~")
    if home != "~":
        candidates.append(Path(home) / ".cache")
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    shared = Path(tempfile.gettempdir()) / f"charlm-{user}"  # its own parent is everybody's: it must be private too
    if _private_folder(shared):
        candidates.append(shared)
    return next((root / name for root in candidates if _private_folder(root / name)), None)


CACHE_FOLDER = cache_folder()


def kernel(function: Function) -> Function:
    """Compile ``function`` with the engine's flags; cached on disk, and free of Python's lock while it runs."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(CACHE_FOLDER or "")
    try:
        options: Any = {"nogil": True, "error_model": "numpy", "fastmath": FAST_MATH, "cache": CACHE_FOLDER is not None}
        compiled: Any = numba.njit(**options)(function)
    finally:
        config.CACHE_DIR = before
    return cast("Function", compiled)


class _Compilations(event.Listener):
    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell

    def on_start(self, what: Any) -> None:
        self.tell(what.data["dispatcher"].py_func.__name__)

    def on_end(self, what: Any) -> None:
        pass


def on_compilation(tell: Callable[[str], None]) -> None:
    """Call ``tell(name of the function)`` before each compilation (loading from the cache is none)."""
    register: Any = event.register
    register("numba:compile", _Compilations(tell))
