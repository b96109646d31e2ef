"""The kernels' cache on disk: found again, never stale, and never a stranger's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlm.engine import jit

ENGINE = Path(jit.__file__).parent
posix = pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the engine that `fingerprint` looks at."""
    copy = tmp_path / "engine"
    shutil.copytree(ENGINE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(jit, "__file__", str(copy / "jit.py"))
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
    here = jit.fingerprint()
    monkeypatch.setattr(jit, "__file__", str(ENGINE / "jit.py"))
    assert jit.fingerprint() == here
    assert jit.CACHE_FOLDER is None or jit.CACHE_FOLDER.name == f"kernels-{here}"


def test_any_edit_of_any_file_changes_the_fingerprint(engine: Path) -> None:
    seen = {jit.fingerprint()}
    files = sorted(engine.rglob("*.py"))
    assert len(files) >= 12
    for count, file in enumerate(files, start=2):
        file.write_text(file.read_text() + "\n")
        seen.add(jit.fingerprint())
        assert len(seen) == count, file


def test_a_new_a_removed_and_a_renamed_file_change_the_fingerprint(engine: Path) -> None:
    before = jit.fingerprint()
    new = engine / "cells" / "new.py"
    new.write_text("")
    with_new = jit.fingerprint()
    new.rename(engine / "cells" / "other.py")
    renamed = jit.fingerprint()
    assert len({before, with_new, renamed}) == 3
    (engine / "cells" / "other.py").unlink()
    assert jit.fingerprint() == before


def test_the_compiler_is_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = jit.fingerprint()
    monkeypatch.setattr(jit.numba, "__version__", "0.0.1")
    assert jit.fingerprint() != before


# The folder


@posix
def test_folders_are_tried_in_turn(roots: dict[str, Path]) -> None:
    name = Path("charlm") / f"kernels-{jit.fingerprint()}"
    user = f"charlm-{os.getuid()}"
    expected = {
        "CHARLM_CACHE_DIR": roots["CHARLM_CACHE_DIR"] / name,
        "XDG_CACHE_HOME": roots["XDG_CACHE_HOME"] / name,
        "HOME": roots["HOME"] / ".cache" / name,
        "TEMP": roots["TEMP"] / user / name,
    }
    for variable, folder in expected.items():
        assert jit.cache_folder() == folder
        assert folder.is_dir()
        shutil.rmtree(roots[variable])
        roots[variable].mkdir()
        block(roots[variable])
    assert jit.cache_folder() is None


@posix
def test_variables_that_are_not_set_are_passed_over(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHARLM_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    folder = jit.cache_folder()
    assert folder is not None
    assert folder.is_relative_to(roots["HOME"] / ".cache")


@posix
def test_a_new_folder_is_the_users_alone(roots: dict[str, Path]) -> None:
    folder = jit.cache_folder()
    assert folder is not None
    assert folder.stat().st_mode & 0o777 == 0o700


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_into_is_refused(roots: dict[str, Path], mode: int) -> None:
    folder = jit.cache_folder()
    assert folder is not None
    folder.chmod(mode)
    other = jit.cache_folder()
    assert other is not None
    assert other.is_relative_to(roots["XDG_CACHE_HOME"])


@posix
def test_a_strangers_folder_is_refused(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = jit.cache_folder()
    assert folder is not None
    stranger = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: stranger)
    assert jit.cache_folder() is None


# Compiling


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


def test_numbas_own_setting_is_left_alone() -> None:
    before = jit.config.CACHE_DIR

    @jit.kernel
    def nothing(x: Any) -> None:
        pass

    assert before == jit.config.CACHE_DIR


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
    results.append(log_probs.tolist())
json.dump({"names": names, "results": results}, sys.stdout)
"""


def test_compiled_once_and_never_stale(tmp_path: Path) -> None:
    """A kernel calls a helper of another file; edits of the helper are seen, in a process of its own each."""
    package = tmp_path / "charlm"
    package.mkdir()
    shutil.copy(ENGINE.parent / "__init__.py", package)
    shutil.copytree(ENGINE, package / "engine", ignore=shutil.ignore_patterns("__pycache__"))
    settings = {"PYTHONPATH": str(tmp_path), "CHARLM_CACHE_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}

    def run() -> tuple[list[str], list[float]]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROBE],
            env=os.environ | settings, cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        first, second = found["results"]
        assert first == second
        return found["names"], first[0]

    quarter = pytest.approx(np.log([0.25, 0.75]), rel=1e-14)
    names, log_probs = run()
    assert names.count("log_softmax") == 1
    assert log_probs == quarter
    assert run() == ([], log_probs)

    helper = package / "engine" / "math.py"
    source = helper.read_text()
    assert 'exp = _function("exp")' in source
    helper.write_text(source.replace('exp = _function("exp")', 'exp = _function("sigmoid")'))
    names, changed = run()
    assert "log_softmax" in names
    # the largest logit becomes sigmoid(0) = 1/2, the other sigmoid(-ln 3) = 1/4
    assert changed == pytest.approx(np.log([1 / 3, 1]) - np.log(3 / 4), rel=1e-14)

    helper.write_text(source)
    assert run() == ([], log_probs)
