"""``charlm gradients`` as a user meets it: columns, streams, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from charlm import checkpoint
from charlm.cli.main import main
from tests.stub_model import write_tiny_model

ROOT = Path(__file__).parents[1]
NAMES = str(ROOT / "corpora" / "dinosaurs.txt")
Run = Callable[..., Result]


@pytest.fixture
def run(runner: CliRunner) -> Run:
    return lambda *arguments, **options: runner.invoke(main, ["gradients", *map(str, arguments)], **options)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.npz"
    write_tiny_model(path)
    return path


def with_history(model: Path, path: Path, clip: float, *shares: float | None) -> Path:
    loaded = checkpoint.load(model)
    history = [
        {"step": 100 * (i + 1)} | ({} if share is None else {"clipped": share}) for i, share in enumerate(shares)
    ]
    header = {name: loaded.header[name] for name in ("model", "vocabulary", "tokenizer")}
    header |= {"training": {"clip": clip, "clip_mode": "norm"}, "history": history}
    checkpoint.save(path, header, loaded.arrays)
    return path


def test_fresh_cells(run: Run) -> None:
    result = run("--cell", "rnn", "--cell", "lstm", NAMES, "--hidden-size", 16, "--positions", 40)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"|d loss<t> / d s<t-k>|, mean over 40 tokens of {NAMES}"
    assert {"rnn", "lstm"} <= set(lines)
    assert all(len(line) <= 80 for line in lines[1:])
    table = [line.split() for line in lines[lines.index(next(line for line in lines if line.startswith("k "))) :]]
    assert table[0] == ["k", "rnn", "lstm"]
    assert [row[0] for row in table[1:6]] == ["0", "1", "2", "3", "5"]
    assert table[-1][:3] == ["factor", "a", "step"]
    assert all(0 < float(number) < 10 for row in table[1:-1] for number in row[1:])


def test_json(run: Run) -> None:
    result = run("--cell", "gru", NAMES, "--hidden-size", 16, "--steps", 4, "--positions", 30, "--json")
    described = json.loads(result.stdout)
    assert (described["corpus"], described["steps"]) == (NAMES, 4)
    curve = described["curves"][0]
    assert set(curve) == {
        "name", "model", "vocabulary_size", "embedding_size", "hidden_size", "num_layers", "cell", "activation",
        "tie_weights", "softmax", "labels", "parameters", "positions", "norms", "layers", "factor_per_step", "clipping",
    }  # fmt: skip
    assert (curve["name"], curve["positions"], len(curve["norms"]), len(curve["layers"][0])) == ("gru", 30, 5, 5)
    assert curve["model"] is curve["clipping"] is None


@pytest.mark.parametrize(
    ("clip", "shares", "told"),
    [
        (1.0, (0.5, 0.1), "gru: --clip 1 by norm changed the gradient in 30.0% of 200 training steps"),
        (0.0, (0.0,), "gru: gradients were not clipped in training"),
        (2.5, (None,), "gru: --clip 2.5 by norm; how often that changed the gradient was not recorded"),
    ],
)
def test_a_model_tells_of_clipping(
    run: Run, model: Path, tmp_path: Path, clip: float, shares: tuple[float | None, ...], told: str
) -> None:
    path = with_history(model, tmp_path / "h.npz", clip, *shares)
    lines = run(path, NAMES, "--steps", 3, "--positions", 9).stdout.splitlines()
    assert lines[-1].startswith(told)
    described = json.loads(run(path, NAMES, "--steps", 3, "--positions", 9, "--json").stdout)["curves"][0]
    assert described["model"] == str(path)
    assert described["clipping"]["limit"] == clip


def test_a_model_that_does_not_tell(run: Run, model: Path) -> None:
    lines = run(model, NAMES, "--steps", 3, "--positions", 9).stdout.splitlines()
    assert lines[-1] == "gru: the model does not tell how its gradients were clipped in training"


def test_the_picture_is_told_on_stderr(run: Run, model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.svg"
    result = run(model, NAMES, "--steps", 3, "--positions", 9, "-o", picture)
    assert result.stderr == f"{picture} is written\n"
    assert picture.read_text("utf-8").startswith("<svg")


def test_standard_input(run: Run, model: Path) -> None:
    piped = run(model, "-", "--steps", 3, input="abcdefgh\nabc\n")
    assert piped.exit_code == 0
    assert "mean over 7 tokens of standard input" in piped.stdout
    assert run("--cell", "rnn", "-", "--steps", 2, "--level", "byte", input="ab\ncd\n").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Missing argument '[MODEL]... CORPUS'"),
        ([NAMES], 2, "is that MODEL or CORPUS? Give both, or --cell and CORPUS"),
        (["{model}", NAMES, "--cell", "rnn"], 2, "leave out --cell, or all but the text"),
        (["{model}", NAMES, "--level", "word"], 2, "a model brings its own text options: leave out --level"),
        (["{model}", NAMES, "--num-layers", "2"], 2, "a model brings its own sizes: leave out --num-layers"),
        ([NAMES, NAMES], 1, "not a charlm model but a text"),
        (["{model}", "nowhere.txt"], 1, "nowhere.txt: no such file"),
        (["nowhere.npz", NAMES], 1, "nowhere.npz"),
        (["{model}", NAMES, "--steps", "500"], 1, "no token has 500 before it in its sequence, the longest has 2"),
        (["{model}", "-", "--on-unknown", "error"], 1, "standard input: '1' (U+0031, DIGIT ONE) at line 1, column 2"),
        (["{model}", NAMES, "-o", "a.png"], 2, "-o a.png: a picture is written as .svg"),
        (["{model}", NAMES, "-o", "no/such/a.svg"], 1, "there is no folder"),
        (["--cell", "gru", NAMES, "--activation", "relu"], 2, "--cell gru has no choice of it"),
        (["--cell", "gru", NAMES, "--on-unknown", "skip"], 2, "leave out --on-unknown"),
        (["--cell", "gru", "{tokens}", "--level", "word"], 2, "is tokenized already: leave out --level"),
        (["--cell", "gru", NAMES, "--label", "x"], 2, "--label 'x': a fresh network is not given any"),
        (["{model}", NAMES, "--label", "x"], 2, "--label 'x': this model was trained without labels"),
        (["--cell", "nothing", NAMES], 2, "'nothing' is not one of"),
        (["--cell", "gru", NAMES, "--steps", "0"], 2, "0 is not in the range"),
        (["--cell", "gru", "-"], 1, "too few tokens have another before them"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    run: Run,
    model: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    tokens = tmp_path / "names.tokens"
    if "{tokens}" in arguments:
        assert CliRunner().invoke(main, ["tokenize", NAMES, "-o", str(tokens)]).exit_code == 0
    result = run(*(argument.format(model=model, tokens=tokens) for argument in arguments), input="a1\n")
    assert result.exit_code == code
    assert result.stdout == ""
    assert message in result.stderr
    assert result.stderr.startswith("charlm: error: ")
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.svg"))


def test_a_token_file_is_a_corpus(run: Run, model: Path, tmp_path: Path) -> None:
    tokens = tmp_path / "names.tokens"
    CliRunner().invoke(main, ["tokenize", NAMES, "--vocab", str(model), "-o", str(tokens)])
    options = ("--steps", 5, "--positions", 20, "--json")
    found, expected = (json.loads(run(model, path, *options).stdout)["curves"] for path in (tokens, NAMES))
    assert found == expected
    assert run("--cell", "rnn", tokens, "--steps", 5).exit_code == 0


@pytest.mark.parametrize(("encoding", "is_ascii"), [("utf-8", False), ("ascii", True), ("latin-1", True)])
def test_a_terminal_without_blocks_gets_letters(encoding: str, is_ascii: bool) -> None:
    command = [sys.executable, "-m", "charlm", "gradients", "--cell", "rnn", NAMES, "--hidden-size", "8"]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, env=environment)
    assert done.stdout.isascii() == is_ascii
    assert b"factor a step" in done.stdout
