"""Who trained a model, and where: the sessions of a training, and the facts of a machine."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from charlm import __version__, checkpoint
from charlm.cli.main import main
from charlm.engine import host, jit
from charlm.workflows.sessions import sessions
from charlm.workflows.train_plan import TRAINING_STATE


def test_the_facts_are_plain() -> None:
    facts = host.facts(3)
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["threads"], facts["numpy"], facts["python"]) == (3, np.__version__, platform.python_version())
    assert set(facts["features"]) <= jit.FEATURES
    assert facts["vector_bits"] == 8 * jit.VECTOR_BYTES
    assert all(facts[name] for name in ("system", "machine", "processor", "cpu", "numba", "llvmlite"))


def test_a_system_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_: (_ for _ in ()).throw(OSError))
    monkeypatch.delattr("os.confstr")
    facts = host.facts(1)
    assert (facts["processor"], facts["libc"]) == (platform.machine(), None)


@pytest.mark.parametrize(
    ("settings", "features"),
    [
        ({"CPU_FEATURES": "+avx,-fma,+sse2"}, {"avx", "sse2"}),
        ({"CPU_FEATURES": ""}, set()),
    ],
)
def test_the_vectors_are_those_that_numba_is_told(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], features: set[str]
) -> None:
    for name, value in settings.items():
        monkeypatch.setattr(jit.config, name, value)
    assert jit._features() == features


def test_numba_without_avx_is_charlm_without_avx(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels' vectors must not be wider than those that the compiler may use."""
    monkeypatch.setattr(jit.config, "CPU_FEATURES", None)
    monkeypatch.setattr(jit.config, "ENABLE_AVX", 1)
    whole = jit._features()
    monkeypatch.setattr(jit.config, "ENABLE_AVX", 0)
    assert jit._features() == {name for name in whole if not name.startswith("avx")}


def test_sessions_follow_one_another_and_equal_ones_are_one() -> None:
    first = sessions(None, "train a", 0, 2)
    assert first == [{"from_step": 0, "command": "train a", "charlm": __version__, "host": host.facts(2)}]
    second = sessions({"sessions": first}, "resume", 5, 2)
    assert [(one["from_step"], one["command"]) for one in second] == [(0, "train a"), (5, "resume")]
    assert sessions({"sessions": second}, "resume", 9, 2) == second
    assert [one["from_step"] for one in sessions({"sessions": second}, "resume", 9, 1)] == [0, 5, 9]


@pytest.mark.parametrize("known", [{}, {"sessions": None}, {"sessions": []}, {"sessions": [1]}])
def test_a_state_of_before_there_were_sessions(known: dict[str, object]) -> None:
    before = {"command": "charlm train old.txt", "charlm": "0.0.9", **known}
    old, new = sessions(before, "resume", 5, 1)
    assert old == {"from_step": 0, "command": "charlm train old.txt", "charlm": "0.0.9", "host": None}
    assert new["from_step"] == 5


def test_a_model_tells_of_the_command_that_began_and_of_the_one_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("abc\nbca\n" * 20)
    for options in (["--hidden-size", "8", "--epochs", "1", "--schedule", "constant"], ["--resume", "--epochs", "2"]):
        monkeypatch.setattr("sys.argv", ["charlm", "train", *options])
        result = CliRunner().invoke(main, ["train", "text.txt", "-o", "m.npz", "--quiet", *options])
        assert result.exit_code == 0, result.stderr
    header = checkpoint.load("m.resume.npz", kind=TRAINING_STATE).header
    assert [one["command"] for one in header["sessions"]] == [
        "charlm train --hidden-size 8 --epochs 1 --schedule constant", "charlm train --resume --epochs 2",
    ]  # fmt: skip
    assert header["sessions"][1]["from_step"] == header["history"][0]["step"]
    assert header["command"] == "charlm train --resume --epochs 2"
