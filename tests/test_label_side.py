"""The labels of a model on disk: what comes back, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm import checkpoint
from charlm.errors import CheckpointError, InputError, UsageError
from charlm.text.labels import Labels
from charlm.text.tokenizer import Tokenizer
from charlm.workflows.label_side import LabelSide, first_input
from charlm.workflows.model_files import load_model
from tests.engine_harness import same_bits
from tests.stub_model import vocabulary_of, write_tiny_model

COUNTS = {"Irish": 6, "Ελλάς": 3, "A b": 1}
LABELS = Labels(tuple(COUNTS))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "m.npz"
    write_tiny_model(path, labels=COUNTS)
    return path


def changed(path: Path, model: dict[str, Any] | None = None, **keys: Any) -> Path:
    """The file with other keys in its header; those that are ... are left out."""
    loaded = checkpoint.load(path)
    header = loaded.header | keys
    header["model"] = header["model"] | (model or {})
    for part in (header, header["model"]):
        for key in [key for key, value in part.items() if value is ...]:
            del part[key]
    checkpoint.save(path, header, loaded.arrays)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(path, 1)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_labels_come_back_with_their_shares(path: Path) -> None:
    loaded = load_model(path, 1)
    assert loaded.labels == LABELS
    assert loaded.label_side is not None
    assert loaded.label_side.prior.tolist() == [0.6, 0.3, 0.1]
    assert loaded.model.config.labels == 3
    model = write_tiny_model(path, labels=COUNTS)
    assert same_bits(loaded.model.parameters["label_embedding"], model.parameters["label_embedding"])


def test_a_file_without_labels_is_as_before(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    write_tiny_model(path)
    loaded = load_model(path, 1)
    assert (loaded.labels, loaded.label_side, loaded.model.config.labels) == (None, None, 0)
    assert load_model(changed(path, {"labels": ...}), 1).label_side is None  # as it was written before there were any
    assert load_model(changed(path, labels=None, label_counts=None), 1).label_side is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"labels": "Irish"}, "'labels' in the header is str, not list"),
        ({"labels": ...}, "the header has no 'labels'"),
        ({"label_counts": ...}, "the header has no 'label_counts'"),
        ({"label_counts": {"Irish": 1}}, "'label_counts' in the header is dict, not list"),
        ({"labels": ["a", "b", 3]}, "not a list of strings"),
        ({"labels": ["a", "b", "a"]}, "one is empty or there twice"),
        ({"labels": ["a", "b", ""]}, "one is empty or there twice"),
        ({"labels": ["a", "b", "c\td"]}, "a label holds a tab or a line break"),
        ({"labels": ["a", "b", "c\nd"]}, "a label holds a tab or a line break"),
        ({"labels": ["a", "b", "\ud800"]}, "surrogates not allowed"),
        ({"labels": [], "label_counts": []}, "there are no labels"),
        ({"labels": ["a", "b"], "label_counts": [1, 2]}, "names of 2 labels, not 3"),
        ({"labels": ["a", "b", "c", "d"], "label_counts": [1, 2, 3, 4]}, "names of 4 labels, not 3"),
        ({"labels": ..., "label_counts": ...}, "names of 0 labels, not 3"),
        ({"label_counts": [1, 2]}, "3 labels and 2 counts"),
        ({"label_counts": [1, 2, -1]}, "not numbers of sequences"),
        ({"label_counts": [1, 2, 1.0]}, "not numbers of sequences"),
        ({"label_counts": [1, 2, True]}, "not numbers of sequences"),
        ({"label_counts": [1, 2, 2**53 + 1]}, "not numbers of sequences"),
        ({"label_counts": [1, 2, 2**63]}, "9223372036854775808 is too large a number"),
        ({"labels": ["a", "b", "c" * 1001]}, "a label has more than 1,000 characters"),
        ({"label_counts": [1, 2, None]}, "not numbers of sequences"),
        ({"label_counts": [0, 0, 0]}, "not numbers of sequences"),
        ({"model": {"labels": -1}}, "labels is -1"),
        ({"model": {"labels": True}}, "labels is True"),
        ({"model": {"labels": 2**40}}, "labels is 1099511627776"),
        ({"model": {"labels": 0}}, "names of 3 labels, not 0"),
        ({"model": {"labels": ...}}, "names of 3 labels, not 0"),
        ({"tokenizer": Tokenizer("char", "file").to_json()}, "labels of what is no line"),
        ({"tokenizer": Tokenizer("byte", "line", "none").to_json()}, "labels of what is no line"),
    ],
)
def test_malformed_labels(path: Path, keys: dict[str, Any], message: str) -> None:
    assert message in refusal(changed(path, **keys))


def test_the_array_must_be_that_of_the_labels(path: Path) -> None:
    loaded = checkpoint.load(path)
    for arrays in (
        {name: array for name, array in loaded.arrays.items() if name != "label_embedding"},
        loaded.arrays | {"label_embedding": loaded.arrays["label_embedding"][:2]},
    ):
        checkpoint.save(path, loaded.header, arrays)
        assert "'label_embedding'" in refusal(path)
    write_tiny_model(path)
    checkpoint.save(path, checkpoint.load(path).header, loaded.arrays)
    assert "'label_embedding' is not in its configuration" in refusal(path)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.integers(1, 99)))
def test_round_trip_of_the_header(counts: dict[str, int]) -> None:
    if not counts:
        return
    side = LabelSide(Labels(tuple(counts)), tuple(counts.values()))
    header = json.loads(json.dumps(side.to_header()))
    assert LabelSide.from_header(header, "m.npz") == side
    assert side.prior.sum() == pytest.approx(1, rel=1e-15)
    np.testing.assert_allclose(side.prior * sum(counts.values()), list(counts.values()), rtol=1e-14)


# The first input


def test_the_first_input() -> None:
    vocabulary = vocabulary_of("ab")
    assert first_input(None, None, vocabulary) == 4
    assert [first_input(name, LABELS, vocabulary) for name in COUNTS] == [5, 6, 7]
    assert first_input(" Ελλα\u0301ς ", LABELS, vocabulary) == 6  # as the reader of the training text has it


@pytest.mark.parametrize(
    ("label", "labels", "kind", "message"),
    [
        (None, LABELS, UsageError, "give --label; it knows Irish, Ελλάς, A b"),
        ("Irish", None, UsageError, "--label 'Irish': this model was trained without labels; leave it out"),
        ("Irsh", LABELS, InputError, "--label: the label 'Irsh' is unknown to the model; did it mean Irish?"),
        ("", LABELS, InputError, "the label '' is unknown to the model; it knows Irish, Ελλάς, A b"),
        ("q\nq", LABELS, InputError, r"the label 'q\nq' is unknown"),
    ],
)
def test_labels_that_cannot_be(label: str | None, labels: Labels | None, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        first_input(label, labels, vocabulary_of("ab"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
