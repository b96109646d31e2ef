"""Kernels are compiled once for each tuple of types, here and on disk, and call each other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlm.engine import jit

ENGINE = Path(jit.__file__).parent


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Names of the kernels that are compiled from here on."""
    names: list[str] = []
    listener = jit._Compilations(names.append, lambda: names.append("end"))
    jit.event.register("numba:compile", listener)
    yield names
    jit.event.unregister("numba:compile", listener)


def test_a_kernel_works_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "CACHE_FOLDER", None)
    names: list[str] = []
    jit.on_compilation(names.append)

    @jit.kernel
    def double(x: Any) -> Any:
        return 2 * x

    assert double(np.float64(2.5)) == 5
    assert double(np.float64(4.5)) == 9
    assert names == ["double"]


def test_a_kernel_from_outside_the_engine_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fingerprint does not know its file: it would go stale."""

    def refuse(*arguments: object) -> None:
        raise AssertionError("written")

    monkeypatch.setattr(jit.KernelFile, "write", refuse)

    @jit.kernel
    def triple(x: Any) -> Any:
        return 3 * x

    assert triple(2) == 6


def test_a_constant_is_no_type_of_its_own(compiled: list[str]) -> None:
    @jit.kernel
    def add(x: Any, n: int) -> Any:
        return x + n

    @jit.kernel
    def caller(x: Any, n: int) -> Any:
        return add(x, 0) + add(x, 1) + add(x, n)

    assert caller(1.0, 5) == 9
    assert add(2.0, 7) == 9
    assert compiled == ["caller", "add", "end"]


def test_the_end_is_told_once_all_is_compiled(compiled: list[str]) -> None:
    @jit.kernel
    def double(x: Any) -> Any:
        return 2 * x

    for value in (1, 2.0, 3, 4.0):
        assert double(value) == 2 * value
    assert compiled == ["double", "end"] * 2


def large(values: Any, scale: float) -> float:
    """Long enough to be called, not copied."""
    if values.size == 0:
        raise ValueError
    total = 0.0
    for i in range(values.size):
        total += values[i] * scale + np.sqrt(np.abs(values[i])) / (1.0 + scale * scale)
    for i in range(values.size - 1):
        values[i] = values[i + 1] * 0.5 + np.exp(values[i]) - np.log(1.0 + np.abs(values[i]))
    for i in range(values.size - 2):
        values[i] = values[i + 2] * 0.25 + np.sin(values[i]) * np.cos(values[i + 1])
    return total


def caller_of(function: Any) -> Any:
    def caller(values: Any) -> Any:
        return function(values, 2.0) + function(values, 3.0)

    return caller


def test_a_large_kernel_is_called_by_its_symbol_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.linspace(0.1, 1, 9)
    results = []
    for limit in (0, 10**9):  # always called, always copied
        monkeypatch.setattr(jit, "LARGE", limit)
        callee: Any = jit.kernel(large)
        caller: Any = jit.kernel(caller_of(callee))
        changed = values.copy()
        results.append((caller(changed), *changed))
        (code,) = caller.inspect_llvm().values()
        assert ("declare i32 @charlm_" in code) == (limit == 0)
        with pytest.raises(ValueError):  # noqa: PT011  a kernel's has no text
            caller(np.zeros(0))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-14)


def test_kernels_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "LARGE", 0)

    def make(factor: float) -> tuple[Callable[..., float], Callable[..., float]]:
        @jit.kernel
        def multiply(x: float) -> float:
            return x * factor

        @jit.kernel
        def caller(x: float) -> float:
            return multiply(x)

        return multiply, caller

    (first, call_first), (second, call_second) = make(2.0), make(3.0)
    assert (first(1.0), second(1.0)) == (2, 3)
    assert (call_second(1.0), call_first(1.0)) == (3, 2)


PROBE = """
import json, sys
import numpy as np
from charlm.engine.jit import on_compilation
names = []
on_compilation(names.append)
from charlm.engine.layers import log_softmax
results = []
for _ in range(2):
    log_probs = np.empty((1, 2))
    log_softmax(np.array([[[0.0, np.log(3.0)]]]), log_probs, 0, 1)
    results.append(log_probs[0].tolist())
json.dump({"names": names, "results": results}, sys.stdout)
"""

# A kernel that calls large ones, which nothing else has loaded.
CALLING = """
import json, sys
import numpy as np
from charlm.engine.jit import on_compilation
names = []
on_compilation(names.append)
from charlm.engine.matmul import pack
packed = np.zeros(16 * 512)
pack(np.arange(6.0).reshape(2, 3), 0, 3, packed, 0, 1)
json.dump({"names": names, "results": [packed.tolist()] * 2}, sys.stdout)
"""


class Processes:
    """Runs probes in processes of their own, whose kernels lie in ``cache``.

    They are compiled without LLVM's optimisations, which takes less long: how fast they run is no matter here.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache

    def start(self, probe: str, **settings: str) -> subprocess.Popen[str]:
        own = {"PYTHONPATH": str(self.folder), "CHARLM_CACHE_DIR": str(self.cache), "PYTHONDONTWRITEBYTECODE": "1"}
        own["NUMBA_OPT"] = "0"
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", probe],
            env=os.environ | own | settings, cwd=self.cache, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str]) -> tuple[list[str], list[float]]:
        """The names of the kernels that were compiled, and the result."""
        out, err = process.communicate()
        assert process.returncode == 0, err
        found = json.loads(out)
        first, second = found["results"]
        assert first == second
        return found["names"], first

    def run(self, probe: str, **settings: str) -> tuple[list[str], list[float]]:
        return self.finish(self.start(probe, **settings))

    def files(self) -> list[Path]:
        return sorted(self.cache.rglob("*.kernel"))


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(ENGINE.parents[1], tmp_path)


@dataclass(frozen=True)
class Filled:
    """A cache that a process has filled, the names of what it compiled, and its result."""

    cache: Path
    names: list[str]
    result: list[float]

    def lay_out(self, processes: Processes) -> None:
        """Put a copy in place."""
        shutil.copytree(self.cache, processes.cache, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    processes = Processes(ENGINE.parents[1], tmp_path_factory.mktemp("filled"))
    return Filled(processes.cache, *processes.run(PROBE))


def test_compiled_once_and_never_stale(tmp_path: Path) -> None:
    """A kernel calls a helper of another file; edits of the helper are seen, in a process of its own each."""
    package = tmp_path / "charlm"
    package.mkdir()
    shutil.copy(ENGINE.parent / "__init__.py", package)
    shutil.copytree(ENGINE, package / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    processes = Processes(tmp_path, tmp_path)

    quarter = pytest.approx(np.log([0.25, 0.75]), rel=1e-14)
    names, log_probs = processes.run(PROBE)
    assert names.count("log_softmax") == 1
    assert log_probs == quarter
    assert processes.run(PROBE) == ([], log_probs)

    helper = package / "engine" / "math.py"
    source = helper.read_text()
    head, exp, rest = source.partition("    def exp(self")
    assert "self.exp_parts(x)" in rest
    helper.write_text(head + exp + rest.replace("self.exp_parts(x)", "self.exp_parts(self.builder.fadd(x, x))", 1))
    names, changed = processes.run(PROBE)
    assert "log_softmax" in names
    # exp(0) of the largest logit remains, exp(-ln 3) of the other becomes exp(-2 ln 3) = 1/9
    assert changed == pytest.approx(np.log([1 / 3, 1]) - np.log(1 + 1 / 9), rel=1e-14)

    helper.write_text(source)
    assert processes.run(PROBE) == ([], log_probs)


def test_a_cached_kernel_finds_those_that_it_calls(processes: Processes) -> None:
    names, packed = processes.run(CALLING)
    assert "pack" in names
    assert sorted(packed)[-5:] == [1, 2, 3, 4, 5]
    assert processes.run(CALLING) == ([], packed)
    for callee in processes.cache.rglob("matmul.pack_panels*"):
        callee.unlink()
    assert processes.run(CALLING) == (["pack_panels"], packed)
    assert processes.run(CALLING) == ([], packed)


def test_damaged_files_are_compiled_again(processes: Processes, filled: Filled) -> None:
    filled.lay_out(processes)
    names, result = filled.names, filled.result
    for i, file in enumerate(processes.files()):
        data = file.read_bytes()
        file.write_bytes([data[: len(data) // 2], bytes(len(data)), b""][i % 3])
    assert processes.run(PROBE) == (names, result)
    assert processes.run(PROBE) == ([], result)


# Names of the kernels of the engine that this process itself compiles: it tells of those for which it waits, too.
OWN = """
from numba.core import event
class Own(event.Listener):
    def on_start(self, what):
        function = what.data["dispatcher"].py_func
        own.extend([function.__name__] if function.__module__.startswith("charlm.engine") else [])
    def on_end(self, what):
        pass
own = []
event.register("numba:compile", Own())
"""


def test_processes_at_once_with_an_empty_cache_compile_each_kernel_once(processes: Processes) -> None:
    probe = OWN + PROBE.replace("names, ", "own, ")
    found = [processes.finish(process) for process in [processes.start(probe) for _ in range(4)]]
    assert len({tuple(result) for _, result in found}) == 1
    compiled = sorted(name for names, _ in found for name in names)
    assert "log_softmax" in compiled
    if os.name == "posix":
        assert len(compiled) == len(set(compiled))
    assert processes.run(PROBE) == ([], found[0][1])


@pytest.mark.skipif(os.name != "posix", reason="no locks")
def test_what_another_process_compiles_is_told_as_if_it_were_compiled_here(tmp_path: Path) -> None:
    """Else a user would look at a hang."""
    told: list[str] = []
    listener = jit._Compilations(told.append, lambda: told.append("end"))
    jit._waiters.append(listener)
    try:
        with jit._Wait("kernel") as wait:
            assert told == []
            wait.begin()
            assert told == ["kernel"]
        assert told == ["kernel", "end"]
        with jit._Wait("kernel"):  # it was free
            pass
        assert told == ["kernel", "end"]
    finally:
        jit._waiters.remove(listener)


def test_two_processors_share_a_home(processes: Processes, filled: Filled) -> None:
    """Neither runs the other's code, and neither's is lost to the other."""
    other = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    filled.lay_out(processes)
    names, result = filled.names, filled.result
    files = processes.files()
    names_there, result_there = processes.run(PROBE, **other)
    assert names_there == names
    assert result_there == pytest.approx(result, rel=1e-14)
    assert len(processes.files()) == 2 * len(files)
    assert set(files) < set(processes.files())
    assert processes.run(PROBE) == ([], result)
    assert processes.run(PROBE, **other) == ([], result_there)


def test_nothing_can_be_written(processes: Processes) -> None:
    nowhere = processes.cache / "file"
    nowhere.write_text("")
    places = dict.fromkeys(["CHARLM_CACHE_DIR", "XDG_CACHE_HOME", "HOME", "LOCALAPPDATA"], str(nowhere))
    script = f"import tempfile\ntempfile.tempdir = {str(nowhere)!r}\n{PROBE}"
    for _ in range(2):
        names, _ = processes.run(script, **places)
        assert "log_softmax" in names
    assert list(processes.cache.iterdir()) == [nowhere]
