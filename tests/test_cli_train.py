"""``charlm train``: options, what is printed and written, signals, and everything that can be wrong with its input."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from charlm import checkpoint
from charlm.cli.main import main
from charlm.cli.train import duration
from charlm.cli.training_view import TrainingView
from charlm.models.language_model import LanguageModel
from charlm.text.tokenizer import Tokenizer
from charlm.training.language_task import LanguageTask
from charlm.workflows.model_files import load_model
from charlm.workflows.train import TrainResult
from charlm.workflows.train_plan import TRAINING_STATE
from charlm.workflows.train_request import TrainRequest
from tests.known_source import MarkovSource
from tests.stub_model import write_tiny_model

ROOT = Path(__file__).parents[1]
CELLS = ["gru", "gru-simple", "lstm", "lstm-peephole", "rnn"]
SMALL = ["--hidden-size", "8", "--batch-size", "4", "--bptt", "8", "--cell", "gru", "--threads", "1"]
JSON_KEYS = [
    "model", "parameters", "epochs", "steps", "tokens", "seconds", "tokens_per_second", "train_nats", "best_valid_nats",
]  # fmt: skip
LOG_KEYS = [
    "event", "step", "epoch", "seconds", "tokens", "loss_nats", "valid_nats", "lr", "grad_norm", "clipped",
]  # fmt: skip
LINES = MarkovSource.draw(mean_length=8.0).lines(60)
TEXT = "\n".join(LINES) + "\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own, in which there is a text."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT)
    return tmp_path


def charlm(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, arguments)], input=stdin)


def train(*arguments: object, stdin: bytes | None = None) -> Result:
    """Train a small model (of an epoch, unless told otherwise), which must work."""
    epochs = [] if {"--epochs", "--time", "--resume"} & set(arguments) else ["--epochs", "1"]
    sizes = [] if "--resume" in arguments else SMALL
    result = charlm(*sizes, *epochs, *arguments, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result


def trained(*arguments: object, stdin: bytes | None = None) -> dict[str, Any]:
    """The same; the JSON that it ends with."""
    result = train(*arguments, "--json", "--quiet", stdin=stdin)
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def failure(*arguments: object, code: int = 1, stdin: bytes | None = None, small: bool = True) -> str:
    """The one line of an error; every file is as before, and none is new."""
    before = files()
    result = charlm(*(SMALL if small else []), *arguments, stdin=stdin)
    last = result.stderr
    assert (result.exit_code, result.stdout) == (code, ""), last
    assert last.startswith("charlm: error: ")
    assert last.count("\n") == 1
    assert files() == before
    return last


def write(name: str, text: str | bytes) -> str:
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


def log_lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


# ---- what is told ----


def test_defaults_are_told_with_their_reasons() -> None:
    result = charlm("text.txt", "-o", "m.npz", "--epochs", 1, "--hidden-size", 8)
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert re.fullmatch(r"text: \d+ tokens in 54 sequences, \d+ held out; 6 symbols", lines[0])
    assert re.fullmatch(r"model: lstm, 1 layer of 8, embedding 8: [\d,]+ parameters", lines[1])
    assert lines[2] == "chosen for you:"
    chosen = {line.split()[0]: re.split(" {2,}", line.strip()) for line in lines if line.startswith("  --")}
    for option in ("--num-layers", "--embedding-size", "--batch-size", "--bptt", "--lr", "--dropout", "--warmup"):
        _, value, reason = chosen[option]
        assert value
        assert reason
    assert not {"--epochs", "--hidden-size"} & set(chosen)  # they were given
    assert any(line.startswith("epoch 1.0  validation ") and "nats/char" in line for line in lines)
    assert lines[-1] == "m.npz is ready. Try: charlm sample m.npz"


def test_quiet_is_silent() -> None:
    result = train("text.txt", "-o", "m.npz", "--quiet")
    assert (result.stdout, result.stderr) == ("", "")


def test_json_is_one_object_on_stdout() -> None:
    result = train("text.txt", "-o", "m.npz", "--json", "--epochs", 2)
    assert result.stdout.count("\n") == 1
    value = json.loads(result.stdout)
    assert list(value) == JSON_KEYS
    loaded = load_model("m.npz", 1)
    assert (value["model"], value["epochs"]) == ("m.npz", 2.0)
    assert value["parameters"] == loaded.model.parameters.count
    assert value["tokens"] == 2 * (len(TEXT) - sum(len(line) + 1 for line in LINES[9::10]))
    assert value["best_valid_nats"] == min(one["valid_nats"] for one in loaded.header["history"])
    assert value["train_nats"] > 0
    tokens, seconds = value["tokens"], value["seconds"]  # rounded to milliseconds, of which there are few here
    assert tokens / (seconds + 0.001) <= value["tokens_per_second"] <= tokens / max(seconds - 0.001, 1e-9)
    assert trained("text.txt", "-o", "m.npz", "--valid-frac", 0)["best_valid_nats"] is None


def test_log() -> None:
    train("text.txt", "-o", "m.npz", "--log", "log.jsonl", "--epochs", 2)
    lines = log_lines("log.jsonl")
    assert all(list(line) == LOG_KEYS for line in lines)
    assert [line["event"] for line in lines if line["event"] != "step"] == ["validation", "validation", "end"]
    steps = [line for line in lines if line["event"] == "step"]
    assert [line["step"] for line in steps] == sorted(line["step"] for line in steps)
    assert all(line["loss_nats"] > 0 and line["grad_norm"] > 0 and 0 <= line["clipped"] <= 1 for line in steps)
    assert all(line["valid_nats"] is None for line in steps)
    assert all(line["valid_nats"] > 0 for line in lines if line["event"] == "validation")
    train("text.txt", "-o", "m.npz", "--resume", "--epochs", 3, "--log", "log.jsonl")
    assert log_lines("log.jsonl")[: len(lines)] == lines
    assert len(log_lines("log.jsonl")) > len(lines)
    train("text.txt", "-o", "m.npz", "--log", "log.jsonl")  # a new training begins a new log
    assert log_lines("log.jsonl")[0]["step"] == 1


def test_the_sample_shows_nothing_that_would_move_the_cursor() -> None:
    write("escapes.txt", "\x1b[2J\x07\x1b]0;x\x07\n" * 50)
    result = train("escapes.txt", "-o", "m.npz", "--epochs", 3)
    assert "\x1b[2J" not in result.stderr
    assert "\x07" not in result.stderr


def test_help_names_every_section() -> None:
    text = charlm("--help").stdout
    for word in ("Text:", "Model:", "Training:", "Files and output:", "--resume", "--init-from", "Examples:"):
        assert word in text


# ---- options ----


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_trains_and_loads(cell: str) -> None:
    value = trained("text.txt", "-o", "m.npz", "--cell", cell, "--num-layers", 2, "--dropout", 0.1, "--epochs", 2)
    model = load_model("m.npz", 1).model
    assert (model.config.cell, model.config.num_layers) == (cell, 2)
    assert value["train_nats"] < np.log(7)
    _, log_probs = model.step(model.zero_state(1), np.array([model.config.vocabulary_size], np.int32))
    assert np.exp(log_probs).sum() == pytest.approx(1)


def test_relu() -> None:
    train("text.txt", "-o", "m.npz", "--cell", "rnn", "--activation", "relu")
    assert load_model("m.npz", 1).model.config.activation == "relu"
    assert "--cell lstm has tanh only" in failure(
        "text.txt", "-o", "n.npz", "--cell", "lstm", "--activation", "relu", code=2
    )


def test_tie_weights() -> None:
    train("text.txt", "-o", "m.npz", "--tie-weights")
    config = load_model("m.npz", 1).model.config
    assert (config.tie_weights, config.embedding_size, config.hidden_size) == (True, 8, 8)
    result = charlm("text.txt", "-o", "n.npz", "--tie-weights", "--embedding-size", 12, "--epochs", 1)
    assert re.search("--hidden-size +12 +equal, for --tie-weights", result.stderr)
    assert load_model("n.npz", 1).model.config.hidden_size == 12
    assert "(5 and 8)" in failure("text.txt", "-o", "k.npz", "--tie-weights", "--embedding-size", 5, code=2)


@pytest.mark.parametrize(
    "options",
    [
        ["--optimizer", "sgd"],
        ["--clip-mode", "value", "--clip", "0.01"],
        ["--schedule", "plateau", "--variational", "--dropout", "0.3"],
        ["--schedule", "constant", "--weight-decay", "0.1"],
        ["--initial-state", "random", "--seed", "7"],
        ["--warmup", "5", "--lr", "0.01"],
        ["--clip", "0"],
        ["--hidden-size", "1", "--embedding-size", "1"],
        ["--bptt", "1", "--batch-size", "1"],
    ],
)
def test_options_take_effect(options: list[str]) -> None:
    train("text.txt", "-o", "m.npz", *options)
    header = load_model("m.npz", 1).header
    values = header["training"] | header["model"]
    for option, value in pairwise(options):
        if option.startswith("--") and not value.startswith("--"):
            kept = values[option[2:].replace("-", "_")]
            assert kept == type(kept)(value)
    assert header["command"].startswith("charlm")


@pytest.mark.parametrize(
    ("options", "share"),
    [(["--clip", "1e-6"], 1), (["--clip", "1e-9", "--clip-mode", "value"], 1), (["--clip", "0"], 0)],
)
def test_clipping_is_counted(options: list[str], share: int) -> None:
    train("text.txt", "-o", "m.npz", "--log", "log.jsonl", *options)
    assert {line["clipped"] for line in log_lines("log.jsonl") if line["event"] == "step"} == {share}


def test_time() -> None:
    began = time.perf_counter()
    value = trained("text.txt", "-o", "m.npz", "--time", "1s", "--log", "log.jsonl", "--patience", 9999)
    assert 1 <= value["seconds"] < 3
    assert time.perf_counter() - began < 10
    assert value["epochs"] > 1
    lines = log_lines("log.jsonl")
    assert lines[0]["lr"] > 5 * lines[-1]["lr"]  # the cosine follows the seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("2.5m", 150), ("1h30m", 5400), ("1h", 3600), ("1m1s", 61)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-5", "m", "1d", "1m1h", "nan", "inf"])
def test_no_durations(text: str) -> None:
    assert "is no time; write 90s, 5m or 1h30m" in failure("text.txt", "-o", "m.npz", "--time", text, code=2)


def test_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanguageTask, "validation_nats", lambda trainer: 2.0)
    result = train("text.txt", "-o", "m.npz", "--patience", 2, "--epochs", 99, "--schedule", "plateau")
    assert "no improvement in 2 validations: " in result.stderr


def test_valid_file_and_several_texts() -> None:
    write("more.txt", "abab\nbaba\n" * 20)
    write("valid.txt", "abcd\n" * 30)
    value = trained("text.txt", "more.txt", "-o", "m.npz", "--valid", "valid.txt", "--valid", "more.txt")
    assert value["tokens"] == len(TEXT) + 200
    header = load_model("m.npz", 1).header
    assert header["corpus"]["names"] == ["text.txt", "more.txt"]
    assert header["corpus"]["valid_sha256"] != header["corpus"]["sha256"]
    result = train("text.txt", "-o", "n.npz", "--valid-frac", "0.5")
    assert "in 30 sequences" in result.stderr


def test_gzip_and_standard_input_train_the_same() -> None:
    Path("text.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    train("text.txt", "-o", "plain.npz")
    train("text.txt.gz", "-o", "packed.npz")
    train("-", "-o", "piped.npz", stdin=TEXT.encode())
    arrays = [checkpoint.load(name).arrays for name in ("plain.npz", "packed.npz", "piped.npz")]
    assert all(np.array_equal(arrays[0][name], other[name]) for other in arrays for name in arrays[0])
    train("-", "-o", "piped.npz", "--resume", "--epochs", 2, stdin=TEXT.encode())


def test_token_file() -> None:
    assert CliRunner().invoke(main, ["tokenize", "text.txt", "-o", "text.tokens", "--level", "word"]).exit_code == 0
    train("text.tokens", "-o", "m.npz")
    assert load_model("m.npz", 1).tokenizer.level == "word"
    train("text.tokens", "-o", "m.npz", "--resume", "--epochs", 2)
    assert "text.tokens is tokenized already: leave out --level" in failure(
        "text.tokens", "-o", "n.npz", "--level", "char", code=2
    )


@pytest.mark.parametrize("level", ["char", "word", "byte"])
@pytest.mark.parametrize("sequence", ["line", "paragraph", "file"])
def test_levels_and_sequences(level: str, sequence: str) -> None:
    write("prose.txt", ("Ein Haus, ein Maß.\nUnd nun?\n\nJa: ein Haus und noch ein Maß!\n" * 20))
    result = train("prose.txt", "-o", "m.npz", "--level", level, "--sequence", sequence, "--valid-frac", 0.2)
    loaded = load_model("m.npz", 1)
    assert (loaded.tokenizer.level, loaded.tokenizer.sequence) == (level, sequence)
    assert f"nats/{level}" in result.stderr
    assert ("perplexity" in result.stderr) == (level == "word")
    sampled = CliRunner().invoke(main, ["sample", "m.npz", "--max-length", "20", "--seed", "1"])
    assert sampled.exit_code == 0, sampled.stderr


# ---- --init-from ----


def test_init_from_takes_weights_and_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    origin = write_tiny_model("origin.npz", "abcdez", cell="gru", size=8)
    taken = []
    original = LanguageModel.loss_and_gradients

    def loss_and_gradients(model: LanguageModel, *arguments: Any) -> float:
        taken.append({path: view.copy() for path, view in model.parameters.items()})
        return original(model, *arguments)

    monkeypatch.setattr(LanguageModel, "loss_and_gradients", loss_and_gradients)
    before = Path("origin.npz").read_bytes()
    result = charlm("text.txt", "-o", "m.npz", "--init-from", "origin.npz", "--epochs", 1, "--batch-size", 4)
    assert result.exit_code == 0, result.stderr
    assert all(np.array_equal(taken[0][path], origin.parameters[path]) for path in origin.parameters)
    assert load_model("m.npz", 1).vocabulary.symbols[2:] == tuple("abcdez")
    assert re.search(r"--hidden-size +8 +as in --init-from", result.stderr)
    assert Path("origin.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--hidden-size", "9"], "--init-from brings its own sizes: leave out --hidden-size"),
        (["--cell", "lstm", "--num-layers", "2"], "leave out --cell, --num-layers"),
        (["--tie-weights"], "leave out --tie-weights"),
        (["--level", "word"], "--init-from brings its own vocabulary: leave out --level"),
        (["--min-count", "2", "--vocab-size", "9"], "leave out --min-count, --vocab-size"),
    ],
)
def test_init_from_refuses_what_it_brings(options: list[str], message: str) -> None:
    write_tiny_model("origin.npz", "abcd", cell="gru", size=8)
    arguments = ["text.txt", "-o", "m.npz", "--init-from", "origin.npz", *options]
    assert message in failure(*arguments, code=2, small=False)


def test_init_from_of_no_model() -> None:
    assert "text.txt: not a charlm model but a text" in failure("text.txt", "-o", "m.npz", "--init-from", "text.txt")
    assert "none.npz: no such file" in failure("text.txt", "-o", "m.npz", "--init-from", "none.npz")


@pytest.mark.parametrize("change", [{"hidden_size": 9}, {"num_layers": 0}, {"vocabulary_size": 3}, {"cell": "lstm"}])
def test_init_from_a_model_whose_header_is_wrong(change: dict[str, Any]) -> None:
    write_tiny_model("origin.npz", "abcd", cell="gru", size=8)
    saved = checkpoint.load("origin.npz")
    checkpoint.save("origin.npz", {**saved.header, "model": saved.header["model"] | change}, saved.arrays)
    assert "origin.npz: " in failure("text.txt", "-o", "m.npz", "--init-from", "origin.npz", small=False)


def test_init_from_the_same_file_as_the_output() -> None:
    train("text.txt", "-o", "m.npz")
    assert charlm("text.txt", "-o", "m.npz", "--init-from", "m.npz", "--epochs", 1).exit_code == 0


def test_another_sequence_of_the_old_model_is_kept() -> None:
    write_tiny_model("origin.npz", "abcd\n", Tokenizer(sequence="file"), cell="gru", size=8)
    assert charlm("text.txt", "-o", "m.npz", "--init-from", "origin.npz", "--epochs", 1).exit_code == 0
    assert load_model("m.npz", 1).tokenizer.sequence == "file"


# ---- texts that are odd ----


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "corpus.txt: empty; there is nothing to read"),
        (b"\n \n\n\t\n", "corpus.txt: nothing but blank lines"),
        (b"abc\nd\0ef\n", "looks binary, with a NUL byte at offset 5"),
        (b"abc\nd\xffef\n", "not UTF-8: byte 0xff at offset 5, line 2"),
        (b"\xff\xfea\0b\0", "is UTF-16, not UTF-8"),
    ],
)
@pytest.mark.parametrize("existing", [False, True])
def test_texts_that_are_none(content: bytes, message: str, existing: bool) -> None:
    if existing:
        train("text.txt", "-o", "m.npz", "--log", "log.jsonl")
    write("corpus.txt", content)
    assert message in failure("corpus.txt", "-o", "m.npz", "--log", "log.jsonl")
    assert message in failure("text.txt", "corpus.txt", "-o", "m.npz")
    assert message in failure("text.txt", "--valid", "corpus.txt", "-o", "m.npz")


def test_texts_that_are_not_there() -> None:
    assert "none.txt: no such file" in failure("none.txt", "-o", "m.npz")
    assert "none.txt: no such file" in failure("text.txt", "--valid", "none.txt", "-o", "m.npz")
    assert "'': no such file" in failure("", "-o", "m.npz")
    Path("some").mkdir()
    assert "some: is a folder" in failure("some", "-o", "m.npz")
    write("cut.gz", gzip.compress(TEXT.encode())[:-20])
    assert "damaged or cut short" in failure("cut.gz", "-o", "m.npz")
    assert "standard input: empty" in failure("-", "-o", "m.npz", stdin=b"")
    assert "hold nothing out with --valid-frac 0" in failure("-", "-o", "m.npz", stdin=b"one line\n")


@pytest.mark.parametrize(
    "text",
    [
        "a", "a\n", "ab\n", "x" * 5000 + "\n", "a\r\nb\r\nabba\r\n", "\ufeffabc\nbca\n", "e\u0301a\u0300\n" * 9,
        "👩‍🚀🎉\n🎉\n" * 9, "\u0301\u0301\n" * 9, "abc", "日本語\n本日\n" * 5, "a\u2028b\x85c\n" * 5,
    ],
    ids=ascii,
)  # fmt: skip
@pytest.mark.parametrize("sequence", ["line", "file"])
def test_odd_texts_train_and_sample(text: str, sequence: str) -> None:
    write("odd.txt", text)
    train("odd.txt", "-o", "m.npz", "--sequence", sequence, "--epochs", 2)
    sampled = CliRunner().invoke(main, ["sample", "m.npz", "--max-length", "10", "--seed", "1"])
    assert sampled.exit_code == 0, sampled.stderr


def test_one_line_of_two_megabytes() -> None:
    write("long.txt", "".join(random.Random(0).choices("abcd ", k=2_000_000)))
    value = trained("long.txt", "-o", "m.npz", "--batch-size", 64, "--bptt", 100, "--time", "0.3s")
    assert value["tokens"] > 0
    assert value["best_valid_nats"] is None  # one sequence, of which none can be held out


def test_a_text_shorter_than_a_batch() -> None:
    result = train("text.txt", "-o", "m.npz", "--batch-size", 5000)
    tokens = re.search(r"the text is shorter than a batch: (\d+) rows instead of 5000", result.stderr)
    assert tokens
    # What was given then may be given again.
    train("text.txt", "-o", "m.npz", "--resume", "--epochs", 2, "--batch-size", 5000)
    assert "this training began with" in failure(
        "text.txt", "-o", "m.npz", "--resume", "--batch-size", 5, code=2, small=False
    )


def test_a_validation_text_longer_than_the_training_text() -> None:
    result = train("text.txt", "-o", "m.npz", "--valid-frac", 0.9)
    assert re.search(r"charlm: the validation text \(\d+ tokens\) is longer than the training text", result.stderr)


# ---- options that are wrong ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "0"], "--batch-size"),
        (["--lr", "-1"], "'-1' is not a number above 0"),
        (["--lr", "nan"], "'nan' is not a number above 0"),
        (["--lr", "inf"], "'inf' is not a number above 0"),
        (["--lr", "fast"], "'fast' is not a number above 0"),
        (["--clip", "nan"], "'nan' is not a number"),
        (["--clip", "-1"], "--clip"),
        (["--dropout", "1"], "--dropout"),
        (["--dropout", "nan"], "'nan' is not a number"),
        (["--weight-decay", "inf"], "--weight-decay"),
        (["--valid-frac", "nan"], "'nan' is not a number"),
        (["--valid-frac", "1"], "--valid-frac"),
        (["--valid", "text.txt", "--valid-frac", "0.1"], "--valid and --valid-frac exclude each other"),
        (["--hidden-size", "0"], "--hidden-size"),
        (["--hidden-size", "9999999"], "--hidden-size"),
        (["--cell", "transformer"], "--cell"),
        (["--seed", "-1"], "--seed"),
        (["--threads", "0"], "--threads"),
        (["--vocab-size", "2"], "--vocab-size"),
        (["--resume", "--init-from", "text.txt"], "--resume goes on with a training, --init-from begins a new one"),
        (["--level", "byte", "--lowercase"], "leave out --lowercase"),
    ],
)
def test_wrong_options(options: list[str], message: str) -> None:
    assert message in failure("text.txt", "-o", "m.npz", *options, code=2)


def test_what_is_missing() -> None:
    assert "CORPUS" in failure("-o", "m.npz", code=2)
    assert "'-o' / '--output'" in failure("text.txt", code=2)


def test_where_nothing_can_be_written() -> None:
    write("file", "no folder")
    Path("folder.npz").mkdir()
    Path("taken.resume.npz").mkdir()
    assert "there is no folder" in failure("text.txt", "-o", "none/m.npz")
    assert "m.npz" in failure("text.txt", "-o", "file/m.npz")
    assert "is a folder" in failure("text.txt", "-o", "folder.npz")
    assert "is a folder" in failure("text.txt", "-o", "taken.npz")
    assert "there is no folder" in failure("text.txt", "-o", "m.npz", "--log", "none/log.jsonl")
    assert "a model needs a file" in failure("text.txt", "-o", "-", code=2)
    assert "a log needs a file" in failure("text.txt", "-o", "m.npz", "--log", "-", code=2)


def test_nothing_is_written_over_the_text() -> None:
    write("text.resume.npz", TEXT)
    Path("link.txt").symlink_to("text.txt")
    for arguments in (
        ["text.txt", "-o", "text.txt"],
        ["text.txt", "-o", "link.txt"],
        ["text.txt", "-o", "m.npz", "--log", "text.txt"],
        ["text.resume.npz", "-o", "text.npz"],
        ["text.resume.npz", "--valid", "text.txt", "-o", "./text.txt"],
    ):
        assert "is the text itself and would be overwritten" in failure(*arguments, code=2)
    assert "choose another name" in failure("text.txt", "-o", "m.npz", "--log", "m.npz", code=2)
    assert "choose another name" in failure("text.txt", "-o", "m.npz", "--log", "m.resume.npz", code=2)


# ---- --resume ----


@pytest.fixture
def unfinished(monkeypatch: pytest.MonkeyPatch) -> str:
    """A training that was stopped at step 9."""
    with monkeypatch.context() as patch:
        patch.setattr(
            "charlm.cli.training_view.TrainingView.step",
            lambda view, event, trainer: setattr(view, "signal", 2 * (trainer.state.progress.step == 9)),
        )
        result = charlm(*SMALL, "text.txt", "-o", "m.npz", "--epochs", 3)
    assert result.exit_code == 130
    assert "stopped at step 9 (interrupted); saved in m.resume.npz. Go on with: charlm train text.txt -o m.npz" in (
        result.stderr
    )
    return "m.npz"


def test_an_unfinished_training_is_not_lost(unfinished: str) -> None:
    message = "m.resume.npz: holds an unfinished training; go on with --resume"
    assert message in failure("text.txt", "-o", unfinished, code=2)
    train("text.txt", "-o", unfinished, "--resume")
    train("text.txt", "-o", unfinished)  # finished: a new one may begin


@pytest.mark.parametrize(
    ("options", "began", "now"),
    [
        (["--hidden-size", "9"], "8", "--hidden-size 9"),
        (["--cell", "lstm"], "gru", "--cell lstm"),
        (["--lr", "0.5"], "0.004", "--lr 0.5"),
        (["--batch-size", "5"], "4", "--batch-size 5"),
        (["--bptt", "9"], "8", "--bptt 9"),
        (["--seed", "3"], "0", "--seed 3"),
        (["--dropout", "0.9"], "0.", "--dropout 0.9"),
        (["--optimizer", "sgd"], "adamw", "--optimizer sgd"),
        (["--schedule", "plateau"], "cosine", "--schedule plateau"),
        (["--tie-weights"], "without it", "--tie-weights"),
        (["--level", "word"], "char", "--level word"),
        (["--sequence", "file"], "line", "--sequence file"),
        (["--lowercase"], "without it", "--lowercase"),
        (["--min-count", "3"], "1", "--min-count 3"),
        (["--vocab-size", "4"], "without it", "--vocab-size 4"),
        (["--valid-frac", "0.2"], "0.1", "--valid-frac 0.2"),
    ],
)
def test_options_cannot_change(unfinished: str, options: list[str], began: str, now: str) -> None:
    line = failure("text.txt", "-o", unfinished, "--resume", *options, code=2, small=False)
    assert f"{now}: this training began {began if began == 'without it' else f'with {began}'}" in line
    # Sizes and vocabulary are the model's, which --init-from brings along.
    can_begin = options[0] in (
        "--lr",
        "--batch-size",
        "--bptt",
        "--seed",
        "--dropout",
        "--optimizer",
        "--schedule",
        "--valid-frac",
    )
    assert ("--init-from" in line) == can_begin


def test_an_end_that_is_over_is_refused_or_told() -> None:
    assert charlm(*SMALL, "text.txt", "-o", "m.npz", "--time", "0.3s").exit_code == 0
    assert "0.1s: " in failure("text.txt", "-o", "m.npz", "--resume", "--time", "0.1s", code=2, small=False)
    result = charlm("text.txt", "-o", "m.npz", "--resume", "--quiet")
    assert result.exit_code == 0
    assert result.stderr == (
        "charlm: nothing was left to do: 0.3 seconds are over; --epochs, --time and --patience set the end\n"
    )
    result = charlm("text.txt", "-o", "m.npz", "--resume", "--quiet", "--time", "0.6s")
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_model_that_is_there_is_told_of_before_it_is_replaced() -> None:
    first = charlm(*SMALL, "text.txt", "-o", "m.npz", "--epochs", 1)
    again = charlm(*SMALL, "text.txt", "-o", "m.npz", "--epochs", 1)
    assert "is there already" not in first.stderr
    assert "m.npz is there already, and will be replaced\n" in again.stderr


def test_the_same_options_may_be_given_again(unfinished: str) -> None:
    result = charlm(*SMALL, "text.txt", "-o", unfinished, "--epochs", 3, "--resume", "--valid-frac", 0.1)
    assert result.exit_code == 0, result.stderr
    assert "going on at step 9 of " in result.stderr


def test_the_text_cannot_change(unfinished: str) -> None:
    write("other.txt", TEXT + "more\n")
    message = "the corpus is not the one this training began with (SHA-256 "
    assert message in failure("other.txt", "-o", unfinished, "--resume", small=False)
    for other in ("text.txt", "other.txt"):
        assert f"--valid {other}: this training began with --valid-frac 0.1; resume without the option" in failure(
            "text.txt", "-o", unfinished, "--resume", "--valid", other, small=False, code=2
        )


def test_the_validation_text_cannot_change() -> None:
    write("valid.txt", TEXT[:40])
    write("other.txt", TEXT + "more\n")
    train("text.txt", "-o", "m.npz", "--valid", "valid.txt")
    resume = ["text.txt", "-o", "m.npz", "--resume", "--epochs", "2"]
    assert "give its --valid again" in failure(*resume, small=False, code=2)
    assert "other.txt: the validation text is not the one" in failure(*resume, "--valid", "other.txt", small=False)
    train(*resume, "--valid", "valid.txt")


def test_nothing_is_written_over_by_a_log() -> None:
    train("text.txt", "-o", "i.npz")
    write("notes.json", "{}\n")
    for arguments in (["--log", "i.npz", "--init-from", "i.npz"], ["--log", "notes.json"]):
        assert "holds something else, which would be lost" in failure(
            "text.txt", "-o", "m.npz", *arguments, code=2, small=False
        )
    train("text.txt", "-o", "m.npz")
    lost = failure("text.txt", "-o", "m.npz", "--resume", "--epochs", "2", "--log", "i.npz", code=2, small=False)
    assert "holds something else" in lost


def test_a_stream_is_no_place_for_a_model() -> None:
    for arguments in (["-o", "/dev/stdout"], ["-o", "m.npz", "--log", "/dev/stderr"], ["-o", "/proc/self/fd/1"]):
        assert "stands for a stream or a device" in failure("text.txt", *arguments, code=2)


@pytest.mark.parametrize(("more", "is_told"), [((), True), (("--softmax", "full"), False), (("--tie-weights",), False)])
def test_the_softmax_for_many_symbols_is_told(
    monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], is_told: bool
) -> None:
    monkeypatch.setattr("charlm.workflows.tasks.language.MANY_SYMBOLS", 3)
    stderr = train("text.txt", "-o", "m.npz", "--epochs", 1, *more).stderr
    assert ("--softmax adaptive is several times as fast" in stderr) == is_told


def test_no_training_to_resume() -> None:
    assert "m.resume.npz: there is no training to resume; leave out --resume" in failure(
        "text.txt", "-o", "m.npz", "--resume", small=False
    )
    train("text.txt", "-o", "m.npz")
    shutil.copy("m.npz", "m.resume.npz")
    assert "m.resume.npz: " in failure("text.txt", "-o", "m.npz", "--resume", small=False)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-50],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"\x80\x04\x95" + data,
        lambda data: data.replace(b"carried", b"carrier"),
        lambda data: data[:400] + b"?" * 40 + data[440:],
    ],
    ids=["end cut off", "half", "empty", "pickle", "another array", "overwritten"],
)
def test_a_damaged_state(unfinished: str, damage: Callable[[bytes], bytes]) -> None:
    path = Path("m.resume.npz")
    path.write_bytes(damage(path.read_bytes()))
    with_model = failure("text.txt", "-o", unfinished, "--resume", small=False)
    assert "m.resume.npz: " in with_model
    Path(unfinished).unlink()
    without = failure("text.txt", "-o", unfinished, "--resume", small=False)
    assert ("--init-from" in with_model, "--init-from" in without) == (True, False)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("model", {"hidden_size": 9}), ("model", {"hidden_size": -1}), ("model", {"hidden_size": 1 << 40}),
        ("model", {"num_layers": "2"}), ("model", {"num_layers": 2}), ("model", {"cell": "none"}),
        ("model", {"vocabulary_size": 99}), ("model", {"activation": "relu"}), ("model", {"more": 1}),
        ("training", {"batch_size": 0}), ("training", {"batch_size": 3}), ("training", {"bptt": "8"}),
        ("training", {"more": 1}), ("progress", {"step": -1}), ("progress", {"chunk": 10**9}),
        ("progress", {"epoch": 1}), ("progress", {"step": "9"}), ("progress", {"more": 1}), ("safe", {"step": 7}),
        ("tokenizer", {"level": "none"}), ("corpus", {"sha256": None}),
    ],
)  # fmt: skip
def test_a_state_whose_header_is_wrong(unfinished: str, key: str, change: dict[str, Any]) -> None:
    saved = checkpoint.load("m.resume.npz", kind=TRAINING_STATE)
    header = {**saved.header, key: saved.header[key] | change}
    checkpoint.save("m.resume.npz", header, saved.arrays, kind=TRAINING_STATE)
    failure("text.txt", "-o", unfinished, "--resume", small=False)


@pytest.mark.parametrize("key", ["model", "training", "progress", "tokenizer", "vocabulary", "corpus", "text"])
@pytest.mark.parametrize("value", [None, [1], "x"])
def test_a_state_whose_header_lacks_a_part(unfinished: str, key: str, value: object) -> None:
    saved = checkpoint.load("m.resume.npz", kind=TRAINING_STATE)
    checkpoint.save("m.resume.npz", {**saved.header, key: value}, saved.arrays, kind=TRAINING_STATE)
    failure("text.txt", "-o", unfinished, "--resume", small=False)


# ---- signals and pipes, in processes of their own ----


class Process:
    """``charlm train`` in a process; its stderr is read as it comes."""

    def __init__(self, *arguments: str, **options: Any) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "charlm", "train", *arguments]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 60
        while not any(text in line for line in self.lines):
            assert time.monotonic() < end, self.lines
            assert self.process.poll() is None, self.lines
            time.sleep(0.01)

    def wait_for_step(self, log: str) -> None:
        end = time.monotonic() + 60
        while not (os.path.exists(log) and os.path.getsize(log)):
            assert time.monotonic() < end, self.lines
            assert self.process.poll() is None, self.lines
            time.sleep(0.01)

    def end(self) -> tuple[int, str, str]:
        stdout = self.process.stdout.read() if self.process.stdout else ""
        code = self.process.wait(60)
        self.reader.join(60)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code, stdout, "".join(self.lines)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_stops(number: int, code: int) -> None:
    process = Process(*SMALL, "text.txt", "--time", "1000s", "-o", "a model.npz", "--log", "log.jsonl")
    process.wait_for_step("log.jsonl")
    process.process.send_signal(number)
    ended, stdout, stderr = process.end()
    assert (ended, stdout) == (code, ""), stderr
    assert "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    found = re.fullmatch(
        r"charlm: stopped at step ([\d,]+) \(\w+\); saved in a model\.resume\.npz\. Go on with: (.*)", last
    )
    assert found
    step = int(found[1].replace(",", ""))
    assert load_model("a model.npz", 1).model.config.hidden_size == 8
    state = checkpoint.load("a model.resume.npz", kind=TRAINING_STATE).header
    assert (state["progress"]["step"], state["finished"]) == (step, False)
    # The command that is shown goes on, and the log with it.
    command = shlex.split(found[2])
    assert command[:2] == ["charlm", "train"]
    epochs = step // (state["progress"]["step"] // max(1, state["progress"]["epoch"]) or step) + 2
    result = charlm(*command[2:], "--epochs", epochs, "--quiet", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["steps"] > step
    lines = log_lines("log.jsonl")
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    assert lines[-1]["step"] > step


def test_twice_stops_at_once() -> None:
    """The first signal comes while a step takes long, the second ends it."""
    write("slow.txt", "".join(random.Random(0).choices("abcd ", k=400_000)))
    process = Process(
        "slow.txt", "-o", "m.npz", "--sequence", "file", "--hidden-size", "384", "--num-layers", "1", "--batch-size",
        "64", "--bptt", "1000", "--epochs", "9", "--threads", "1", "--log", "log.jsonl",
    )  # fmt: skip
    process.wait_for_step("log.jsonl")
    process.process.send_signal(signal.SIGINT)
    process.wait_for("stopping after this step; again to stop at once")
    process.process.send_signal(signal.SIGINT)
    code, stdout, stderr = process.end()
    assert (code, stdout) == (130, "")
    assert "Traceback" not in stderr
    if "stopped at step" not in stderr:  # unless the step was quicker than the second signal
        assert not Path("m.resume.npz").exists()
    assert not list(Path().glob(".charlm-*"))


def test_a_signal_before_there_is_anything_to_save_stops_at_once() -> None:
    process = Process(*SMALL, "-", "-o", "m.npz", stdin=subprocess.PIPE)  # which nobody writes to
    time.sleep(1.5)
    process.process.send_signal(signal.SIGTERM)
    code, stdout, stderr = process.end()
    assert process.process.stdin is not None
    process.process.stdin.close()
    assert code in (143, -signal.SIGTERM)  # the latter before charlm has taken over
    assert stdout == ""
    assert "Traceback" not in stderr
    assert code < 0 or "stopped before the first step: there is nothing to save" in stderr
    assert not Path("m.npz").exists()


def test_a_signal_in_the_first_step_leaves_nothing() -> None:
    write("slow.txt", "".join(random.Random(0).choices("abcd ", k=400_000)))
    process = Process(
        "slow.txt", "-o", "m.npz", "--sequence", "file", "--hidden-size", "384", "--num-layers", "1", "--batch-size",
        "64", "--bptt", "1000", "--epochs", "9", "--threads", "1",
    )  # fmt: skip
    process.wait_for("chosen for you")
    process.process.send_signal(signal.SIGINT)
    code, _, stderr = process.end()
    assert code == 130
    if "stopped before the first step" in stderr:  # unless that was quicker
        assert sorted(path.name for path in Path().iterdir() if "m." in path.name) == []


def in_shell(command: str) -> subprocess.CompletedProcess[str]:
    program = f"{shlex.quote(sys.executable)} -m charlm train {shlex.join(SMALL)} --patience 99 text.txt"
    return subprocess.run(
        ["sh", "-c", command.replace("TRAIN", program)], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        "TRAIN --epochs 20 -o m.npz 2>&1 >/dev/null | head -n 1",  # stderr goes away in the middle
        "TRAIN --epochs 20 -o m.npz 2>&-",
        "TRAIN --epochs 20 -o m.npz --json >&-",
        "TRAIN --epochs 20 -o m.npz --json | true",
        "TRAIN --epochs 20 -o m.npz --json >&- 2>&-",
    ],
)
def test_a_closed_pipe_loses_no_model(command: str) -> None:
    result = in_shell(command)
    assert "Traceback" not in result.stderr
    assert load_model("m.npz", 1).header["history"]
    state = checkpoint.load("m.resume.npz", kind=TRAINING_STATE).header
    assert (state["finished"], state["progress"]["epoch"]) == (True, 20)


def test_a_divergence_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = LanguageModel.loss_and_gradients, []

    def loss_and_gradients(*arguments: Any) -> float:
        calls.append(1)
        loss_nats = original(*arguments)
        return float("nan") if len(calls) > 60 else loss_nats

    monkeypatch.setattr(LanguageModel, "loss_and_gradients", loss_and_gradients)
    result = charlm(*SMALL, "text.txt", "-o", "m.npz", "--epochs", 9, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert sum("rate lowered to" in line for line in lines) == 8
    assert lines[-1].startswith("charlm: error: the loss is nan at step ")
    assert lines[-1].endswith("the best model is in place: begin anew with a lower --lr or a smaller --clip")
    assert load_model("m.npz", 1).header["history"]


# ---- names and ends that would cost another training ----


@pytest.mark.parametrize("name", ["m.resume.npz", "m.resume", "m.step-000000100.npz"])
def test_a_model_is_not_written_where_something_of_another_belongs(name: str) -> None:
    assert "is a name for what belongs to another model" in failure("text.txt", "-o", name, code=2)


def test_two_models_of_like_names_have_a_state_each() -> None:
    trained("text.txt", "-o", "m.npz")
    state = Path("m.resume.npz").read_bytes()
    trained("text.txt", "-o", "m", "--seed", "2")
    assert Path("m.resume").exists()
    assert Path("m.resume.npz").read_bytes() == state


def test_an_end_that_lies_behind_the_training() -> None:
    trained("text.txt", "-o", "m.npz", "--epochs", "3")
    before = Path("m.resume.npz").read_bytes()
    message = failure("text.txt", "-o", "m.npz", "--resume", "--epochs", "2", code=2, small=False)
    assert "--epochs 2: 3 are done already; give more" in message
    assert Path("m.resume.npz").read_bytes() == before


def test_a_network_that_no_memory_holds() -> None:
    line = failure("text.txt", "-o", "m.npz", "--hidden-size", "1000000", "--num-layers", "60")
    assert re.search(r"out of memory \(a network of \d{3}(,\d{3}){4} parameters\); try a smaller .*--hidden-size", line)
    assert not Path("m.npz").exists()


def test_epochs_that_are_given_are_made() -> None:
    train("text.txt", "-o", "m.npz", "--epochs", "2")
    assert checkpoint.load("m.npz").header["training"]["patience"] is None


def test_a_state_that_cannot_be_read_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(checkpoint, "SCHEMA", checkpoint.SCHEMA + 1)
        train("text.txt", "-o", "m.npz")
    line = failure("text.txt", "-o", "m.npz")
    assert "upgrade with: pip install -U charlm; it would be replaced: move it away, or choose another -o" in line


def test_a_token_file_that_was_cut_anew_is_another_text() -> None:
    assert CliRunner().invoke(main, ["tokenize", "text.txt", "-o", "t.tokens"]).exit_code == 0
    train("t.tokens", "-o", "m.npz")
    again = ["tokenize", "text.txt", "--vocab", "t.tokens", "--sequence", "file", "-o", "t.tokens"]
    assert CliRunner().invoke(main, again).exit_code == 0
    line = failure("t.tokens", "-o", "m.npz", "--resume", "--epochs", "9", small=False)
    assert "t.tokens: made with another vocabulary or tokenizer" in line


def test_standard_input_is_named_once() -> None:
    line = failure("-", "-o", "m.npz", "--valid", "-", code=2, stdin=b"a\n")
    assert "standard input (-) can be read only once; name it once" in line


def test_what_to_go_on_with_names_all_that_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    request = TrainRequest(["a b.txt", "c"], "m.npz", valid=["v w.txt"], log="l.jsonl")
    result = TrainResult("m.npz", 1, 0.5, 7, 70, 1.0, 70.0, None, None, "interrupted", True, 7)
    TrainingView(quiet=True).finished(result, request)
    go_on = "charlm train 'a b.txt' c --valid 'v w.txt' --log l.jsonl -o m.npz --resume"
    assert capsys.readouterr().err.endswith(f"Go on with: {go_on}\n")
