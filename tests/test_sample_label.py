"""Sampling from a model that is given a label: known probabilities, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from charlm.cli.main import main
from charlm.errors import InputError, UsageError
from charlm.text.labels import Labels
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID
from charlm.workflows.model_files import load_model
from charlm.workflows.sample import Piece, Sample, SampleOptions, sample
from tests.stub_model import StubModel, vocabulary_of, write_tiny_model
from tests.test_sample import random_table

LABELS = Labels(("left", "right"))
# Columns <unk>, <eos>, a, b, c; rows the token before, then the zero vector (never asked for), left and right.
TABLE = random_table(8, 5, seed=3)
TABLE[5] = [1, 0, 0, 0, 0]
MODEL = StubModel(TABLE)


def run(label: str, **options: Any) -> list[Sample]:
    request = SampleOptions(label=label, **options)
    events = sample(MODEL, vocabulary_of("abc"), Tokenizer(), request, LABELS)
    return [event for event in events if isinstance(event, Sample)]


def log_prob(label: str, one: Sample) -> float:
    """By the definition."""
    last, total = 6 + LABELS.names.index(label), 0.0
    for token in [*(2 + "abc".index(symbol) for symbol in one.tokens), *([EOS_ID] if one.ended == "eos" else [])]:
        total += math.log(TABLE[last, token])
        last = token
    return total


@pytest.mark.parametrize("label", LABELS.names)
@pytest.mark.parametrize("prompt", ["", "ab"])
@pytest.mark.parametrize(
    "options",
    [{"count": 50}, {"greedy": True}, {"beam": 6, "count": 6}, {"count": 9, "temperature": 0.5, "top_k": 3}, {}],
)
def test_every_way_to_draw_begins_with_the_label(label: str, prompt: str, options: dict[str, Any]) -> None:
    for one in run(label, prompt=prompt, seed=1, max_length=5, **options):
        assert one.label == label
        assert one.text.startswith(prompt)
        assert one.log_prob_nats == pytest.approx(log_prob(label, one), abs=1e-12)


def test_first_tokens_have_the_frequencies_of_the_label() -> None:
    count = 4000
    for row, label in enumerate(LABELS.names):
        firsts = "".join(one.text for one in run(label, count=count, seed=5, max_length=1))
        expected = TABLE[6 + row, 2:] / TABLE[6 + row, 2:].sum() * count
        found = np.array([firsts.count(symbol) for symbol in "abc"])
        assert ((found - expected) ** 2 / expected).sum() < 15  # chi-squared of 2 degrees of freedom: 1 in 2000


def test_a_beam_finds_the_likeliest_of_the_label() -> None:
    (left,), (right,) = (run(label, beam=60, max_length=3) for label in LABELS.names)
    drawn = {label: run(label, count=300, seed=2, max_length=3) for label in LABELS.names}
    for best, label in ((left, "left"), (right, "right")):
        ended = [one for one in drawn[label] if one.ended == "eos"]
        assert best.log_prob_nats >= max(one.log_prob_nats for one in ended)


def test_pieces_of_a_single_sample() -> None:
    events = list(sample(MODEL, vocabulary_of("abc"), Tokenizer(), SampleOptions(label="left", seed=4), LABELS))
    assert isinstance(events[-1], Sample)
    assert "".join(event.text for event in events[:-1] if isinstance(event, Piece)) == events[-1].text


def test_a_label_is_missing_or_one_too_many() -> None:
    with pytest.raises(UsageError, match="give --label; it knows left, right"):
        next(sample(MODEL, vocabulary_of("abc"), Tokenizer(), SampleOptions(), LABELS))
    with pytest.raises(UsageError, match="trained without labels"):
        next(sample(MODEL, vocabulary_of("abc"), Tokenizer(), SampleOptions(label="left")))


def test_what_stands_under_any_label_is_not_novel(tmp_path: Path) -> None:
    plain = [one.text for one in run("left", count=40, seed=1, max_length=2)]
    known = sorted(set(plain))[:2]
    corpus = tmp_path / "known.tsv"
    corpus.write_text(f"right\t{known[0]}\nsomething else\t{known[1]}\n\nleft\t\n")
    found = run("left", count=40, seed=1, max_length=2, novel=str(corpus))
    assert not set(known) & {one.text for one in found}
    assert sum(one.refused or 0 for one in found) > 0
    corpus.write_text("abc\n")
    with pytest.raises(InputError, match=r"known\.tsv: line 1 has no tab; write label<TAB>text"):
        run("left", novel=str(corpus))


# The command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "given.npz", sharpness=6, biases={"<eos>": 1.5}, labels={"Irish": 5, "Greek": 3})
    write_tiny_model(folder / "plain.npz", sharpness=6, biases={"<eos>": 1.5})
    return folder


def charlm(folder: Path, name: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["sample", str(folder / name), *arguments])


def test_the_command_writes_what_the_label_asks_for(folder: Path) -> None:
    result = charlm(folder, "given.npz", "--label", "Greek", "-n", "20", "--seed", "1", "--json")
    assert result.exit_code == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == 20
    loaded = load_model(folder / "given.npz", 1)
    for row in rows:
        assert row["label"] == "Greek"
        ids = np.append(loaded.vocabulary.ids(row["tokens"]), np.int32(EOS_ID)).astype(np.int32).reshape(-1, 1)
        inputs = np.concatenate([np.array([[loaded.vocabulary.size + 2]], np.int32), ids[:-1]])
        nats = loaded.model.log_probs(inputs, ids, loaded.model.zero_state(1)).sum()
        assert row["log_prob_nats"] == pytest.approx(nats, abs=1e-4)
    lines = charlm(folder, "given.npz", "--label", "Greek", "-n", "20", "--seed", "1").stdout.splitlines()
    assert lines == [row["text"] for row in rows]
    assert charlm(folder, "given.npz", "--label", "Irish", "-n", "20", "--seed", "1").stdout.splitlines() != lines
    one = charlm(folder, "given.npz", "--label", "Greek", "-n", "20", "--seed", "1", "--threads", "1", "--log-prob")
    assert [line.split("\t")[1] for line in one.stdout.splitlines()] == lines


def test_a_model_without_labels_says_so_in_json(folder: Path) -> None:
    assert json.loads(charlm(folder, "plain.npz", "--json").stdout)["label"] is None


@pytest.mark.parametrize(
    ("name", "options", "code", "message"),
    [
        ("given.npz", [], 2, "this model writes what a label asks for: give --label; it knows Irish, Greek"),
        ("plain.npz", ["--label", "Irish"], 2, "--label 'Irish': this model was trained without labels; leave it out"),
        ("given.npz", ["--label", "Grek"], 1, "--label: the label 'Grek' is unknown to the model; did it mean Greek?"),
        ("given.npz", ["--label", "all"], 1, "the label 'all' is unknown to the model; it knows Irish, Greek"),
        ("given.npz", ["--label", "Irish", "--prompt", "ä"], 1, "prompt"),
        ("given.npz", ["--label", "Irish", "--novel", "none.tsv"], 1, "none.tsv: no such file"),
    ],
)
def test_bad_input(folder: Path, name: str, options: list[str], code: int, message: str) -> None:
    result = charlm(folder, name, *options)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
