"""The one decorator of every compiled function, and all of Numba's flags.

A kernel may call another. A small one is copied into its callers, as Numba always does. A large one is compiled once
and called by its symbol's name: otherwise the product's tiles would be optimised again in each kernel that multiplies,
which made a first `charlm train` take twice as long.
"""

from __future__ import annotations

import copy
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from llvmlite import binding
from numba.core import codegen as numba_codegen
from numba.core import config as numba_config
from numba.core import event
from numba.core import sigutils as numba_sigutils
from numba.core import types as numba_types
from numba.core.compiler import CompileResult as NumbaResult
from numba.core.registry import CPUDispatcher
from numba.core.runtime import nrt

from charlm.engine import kernel_cache
from charlm.engine.kernel_cache import KernelFile
from charlm.engine.turns import turns_of

config: Any = numba_config  # its options are made at run time
codegen: Any = numba_codegen
types: Any = numba_types  # this and the next two have types in later versions only
sigutils: Any = numba_sigutils
CompileResult: Any = NumbaResult
Function = TypeVar("Function", bound=Callable[..., Any])

# No nnan and no ninf: a NaN must stay visible. No reassoc: the sums of a run must not depend on the compiler's mood.
FAST_MATH = {"contract", "nsz", "arcp"}

# Free of Python's lock while they run. No wrapper for callers in C, which took a sixth of the time of compilation.
OPTIONS = {"nopython": True, "nogil": True, "error_model": "numpy", "fastmath": FAST_MATH, "no_cfunc_wrapper": True}

LARGE = 200  # instructions of a kernel that is not copied into its callers; LLVM inlines nothing above about 50


def _features() -> frozenset[str]:
    """Names of the vector features that kernels are compiled for."""
    named: str | None = config.CPU_FEATURES  # NUMBA_CPU_FEATURES, e.g. to try narrower vectors
    if named is None:
        named = codegen.get_host_cpu_features()  # Numba's, which knows NUMBA_ENABLE_AVX too
    return frozenset(feature[1:] for feature in named.split(",") if feature.startswith("+"))


FEATURES = _features()
IS_X86 = binding.get_process_triple().startswith(("x86", "i386", "i686"))
HAS_FMA = "fma" in FEATURES or not IS_X86
if "avx512f" in FEATURES:
    VECTOR_BYTES, VECTOR_REGISTERS = 64, 32
elif "avx" in FEATURES:
    VECTOR_BYTES, VECTOR_REGISTERS = 32, 16
else:
    VECTOR_BYTES, VECTOR_REGISTERS = 16, 16 if IS_X86 else 32

CACHE_FOLDER: Path | None = kernel_cache.cache_folder()
ENGINE = __name__.rpartition(".")[0]

Types = tuple[Any, ...]  # Numba's, of a kernel's arguments
Needs = set[tuple[str, Types]]  # names and types of the kernels that another one calls by their symbols


class _Watch:
    """Adds up the time in which at least one thread compiles or loads a kernel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy = 0  # threads, and kernels within kernels
        self._since = self._seconds = 0.0

    def begin(self) -> None:
        with self._lock:
            if self._busy == 0:
                self._since = time.perf_counter()
            self._busy += 1

    def end(self) -> None:
        with self._lock:
            self._busy -= 1
            if self._busy == 0:
                self._seconds += time.perf_counter() - self._since

    def seconds(self) -> float:
        with self._lock:
            return self._seconds + (time.perf_counter() - self._since if self._busy else 0.0)


_watch = _Watch()


class Kernel(CPUDispatcher):
    """A function that is compiled when it is first called with arguments of certain types.

    Numba's own, but for three things: a constant is no type of its own, so that a call with a literal 0 compiles
    nothing new; a large kernel is called instead of copied; the cache on disk is ours.

    Attributes:
        by_name: all kernels of the modules that were imported.
    """

    by_name: ClassVar[dict[str, Kernel]] = {}
    _threads: ClassVar[Any] = threading.local()  # its `needs`: of each kernel being compiled, the outermost first
    _numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function, targetoptions=dict(OPTIONS))
        self.name = f"{function.__module__}.{function.__qualname__}"
        self._context: Any = self.targetctx
        self._needs: dict[Types, Needs] = {}
        self._is_large: dict[Types, bool] = {}
        self._called: dict[Types, object] = {}  # what stands for a large kernel's code in its callers
        self._is_of_engine = self.name.startswith(f"{ENGINE}.")
        if self._is_of_engine and CACHE_FOLDER is not None:  # of others, the fingerprint knows nothing
            self._cache = _Cache(self, CACHE_FOLDER)
        self.by_name[self.name] = self

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """The types of a call by another kernel; Numba's name for it."""
        return super().get_call_template([types.unliteral(kind) for kind in args], kws)

    def compile(self, sig: Any) -> Any:
        """Compile for a tuple of types, or load what was compiled before. Numba's name for it."""
        open_needs = self._open_needs()
        open_needs.append(set())
        _watch.begin()
        try:
            entry_point = super().compile(sig)
        finally:
            _watch.end()
            found = open_needs.pop()
            if isinstance(self._cache, _Cache):
                self._cache.end_turn(sig)
        kinds = _types_of(sig)
        needs = self._needs.setdefault(kinds, found)
        if open_needs:
            open_needs[-1] |= {(self.name, kinds)} if self._is_large[kinds] else needs
        return entry_point

    def _open_needs(self) -> list[Needs]:
        if not hasattr(self._threads, "needs"):
            self._threads.needs = []
        found: list[Needs] = self._threads.needs
        return found

    def add_overload(self, cres: Any) -> None:
        """Take up what was compiled or loaded; Numba's name for it."""
        super().add_overload(cres)
        kinds = tuple(cres.signature.args)
        if kinds not in self._is_large:
            code = cres.library.get_function(cres.fndesc.llvm_func_name)
            self._is_large[kinds] = sum(1 for block in code.blocks for _ in block.instructions) > LARGE
        if self._is_large[kinds]:
            symbol = f"charlm_{self.key(kinds)}"
            if not self._is_of_engine:  # there may be several of a name
                symbol += f"_{next(self._numbers)}"
            binding.add_symbol(symbol, cres.library.get_pointer_to_function(cres.fndesc.llvm_func_name))
            description = copy.copy(cres.fndesc)
            description.mangled_name = symbol
            self._called[kinds] = object()
            self._context.insert_user_function(self._called[kinds], description)

    def get_overload(self, sig: Any) -> Any:
        """What a calling kernel's code refers to; Numba's name for it."""
        return self._called.get(_types_of(sig)) or super().get_overload(sig)

    def key(self, kinds: Types) -> str:
        """A digest of all that the code depends on."""
        return kernel_cache.key_of(self.name, kinds, self._context.codegen())

    def reduce(self, kinds: Types, cres: Any) -> Any:
        """What `rebuild` can restore in another process."""
        return self._is_large[kinds], self._open_needs()[-1], cres._reduce()

    def rebuild(self, kinds: Types, reduced: Any) -> Any:
        """A result of compilation; None if a kernel that it calls is not there."""
        is_large, needs, result = reduced
        for name, types_there in needs:
            if name not in self.by_name:
                return None
            self.by_name[name].compile(types_there)  # or load it: its symbol must be known
        self._is_large[kinds] = is_large
        return CompileResult._rebuild(self._context, *result)


def _types_of(signature: Any) -> Types:
    return tuple(sigutils.normalize_signature(signature)[0])


class _Cache:
    """What Numba asks for a kernel's code, and gives it to; the names of its methods are Numba's.

    Both while it holds its lock of compilation, so of this process no other thread waits for a turn, nor has one.
    """

    def __init__(self, kernel: Kernel, folder: Path) -> None:
        self.kernel, self.folder = kernel, folder
        self._turns = turns_of(folder)
        self._keys: dict[Types, str] = {}  # of the kernels whose turn this process has

    def _file(self, sig: Any) -> tuple[Types, KernelFile]:
        kinds, kernel = _types_of(sig), self.kernel
        return kinds, KernelFile(self.folder, kernel.name.removeprefix(f"{ENGINE}."), kernel.key(kinds))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        nrt.rtsys.initialize(target_context)  # all that compiled code needs; Numba's types too would take 80 ms more
        kinds, file = self._file(sig)
        reduced = file.read()
        if reduced is None:
            self._keys[kinds] = file.key
            with _Wait(self.kernel.py_func.__name__) as wait:
                self._turns.begin(file.key, wait.begin)
            reduced = file.read()  # whoever had the turn before has written it
        if reduced is None:
            return None
        self.end_turn(sig)
        return self.kernel.rebuild(kinds, reduced)

    def save_overload(self, sig: Any, data: Any) -> None:
        kinds, file = self._file(sig)
        if file.write(self.kernel.reduce(kinds, data)):
            _remove_unused(self.folder)
        self.end_turn(sig)

    def end_turn(self, sig: Any) -> None:
        """Let other processes have this kernel's turn, if this one has it: what was compiled is written, or failed."""
        key = self._keys.pop(_types_of(sig), None)
        if key is not None:
            self._turns.end(key)


_remove_unused = lru_cache(maxsize=1)(kernel_cache.remove_unused)  # once a process that compiles


def kernel(function: Function) -> Function:
    """Compile ``function`` with the engine's flags; cached on disk, and free of Python's lock while it runs."""
    compiled: Any = Kernel(function)
    return cast("Function", compiled)


class _Compilations(event.Listener):
    def __init__(self, begin: Callable[[str], None], end: Callable[[], None]) -> None:
        self.begin, self.end = begin, end
        self.depth = 0

    def on_start(self, what: Any) -> None:
        self.depth += 1
        compiled = what.data["dispatcher"]
        if isinstance(compiled, Kernel):  # the others are helpers from Numba itself
            self.begin(compiled.py_func.__name__)

    def on_end(self, what: Any) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.end()


_waiters: list[_Compilations] = []  # who is told when this process waits for a kernel that another one compiles


class _Wait:
    """Tells of a kernel that another process compiles, once `begin` was called, as if it were compiled here."""

    def __init__(self, name: str) -> None:
        self._name, self._is_told = name, False

    def __enter__(self) -> _Wait:
        return self

    def begin(self) -> None:
        self._is_told = True
        for waiter in _waiters:
            waiter.begin(self._name)

    def __exit__(self, *error: object) -> None:
        for waiter in _waiters if self._is_told else []:
            if waiter.depth == 0:
                waiter.end()


def on_compilation(begin: Callable[[str], None], end: Callable[[], None] = lambda: None) -> None:
    """Be told of compilations, by this process or by another one for which it waits; loading from the cache is none.

    Args:
        begin: called with the name of each kernel before it is compiled; those that it calls follow.
        end: called when nothing more is being compiled.
    """
    listener = _Compilations(begin, end)
    register: Any = event.register
    register("numba:compile", listener)
    _waiters.append(listener)


def kernel_count() -> int:
    """How many kernels there are in the modules that were imported."""
    return len(Kernel.by_name)


def compilation_seconds() -> float:
    """How long this process has spent until now compiling kernels, or loading compiled ones."""
    return _watch.seconds()
