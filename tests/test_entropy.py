"""A source whose entropy is known: training approaches it from above, and nothing goes below it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from charlm.models.language_model import LanguageModel
from charlm.text.vocabulary import EOS_ID
from charlm.units import nats_to_bits
from charlm.workflows.model_files import LoadedModel, load_model
from charlm.workflows.train import run
from charlm.workflows.train_request import TrainRequest
from tests.known_source import MarkovSource
from tests.test_training import Watcher

TRAIN_LINES, TEST_LINES = 8000, 4000


@pytest.fixture(scope="module")
def source() -> MarkovSource:
    return MarkovSource.draw("abcde", order=2, mean_length=12.0, seed=3)


@pytest.fixture(scope="module")
def trained(source: MarkovSource, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("entropy")
    text, model = folder / "lines.txt", folder / "model.npz"
    text.write_text("\n".join(source.lines(TRAIN_LINES, seed=1)) + "\n")
    run(
        TrainRequest(
            [str(text)], str(model), cell="gru", hidden_size=32, num_layers=1, embedding_size=16, batch_size=32,
            bptt=24, epochs=4, lr=0.01, dropout=0.0,
        ),
        Watcher(),
    )  # fmt: skip
    return load_model(model, 1)


def nats_by_line(model: LanguageModel, loaded: LoadedModel, lines: list[str]) -> np.ndarray:
    """-log P of each line, its end included; one row a line, so that no state can pass from one to another."""
    ids = [[*loaded.vocabulary.ids(list(line)), EOS_ID] for line in lines]
    steps = max(map(len, ids))
    targets = np.full((steps, len(ids)), -1, np.int32)
    inputs = np.full((steps, len(ids)), loaded.vocabulary.start_id, np.int32)
    for row, line in enumerate(ids):
        targets[: len(line), row] = line
        inputs[1 : len(line), row] = line[:-1]
    result: np.ndarray = -model.log_probs(inputs, targets, model.zero_state(len(ids))).sum(axis=0)
    return result


def test_the_loss_approaches_the_entropy_from_above(source: MarkovSource, trained: LoadedModel) -> None:
    lines = source.lines(TEST_LINES, seed=2)
    model_nats = nats_by_line(trained.model, trained, lines)
    true_nats = np.array([source.nats(line) for line in lines])
    tokens = sum(len(line) + 1 for line in lines)
    # The fresh text itself is as surprising as the source says.
    true_error = true_nats.std() / math.sqrt(TEST_LINES)
    assert abs(true_nats.mean() - source.nats_per_line) < 3 * true_error
    # On the same lines chance nearly cancels: the excess is the divergence of the model from the source.
    excess_nats = model_nats - true_nats
    error = excess_nats.std() / math.sqrt(TEST_LINES)
    assert excess_nats.mean() > -3 * error
    assert excess_nats.sum() / tokens < 0.02
    # And against the exact figure, in nats and in bits a token.
    rate = model_nats.sum() / tokens
    error = 3 * model_nats.std() * math.sqrt(TEST_LINES) / tokens
    assert source.nats_per_token - error < rate < source.nats_per_token + 0.02 + error
    assert nats_to_bits(rate) == pytest.approx(rate / math.log(2))


def test_the_validation_loss_is_the_entropy_too(source: MarkovSource, trained: LoadedModel) -> None:
    """What training reports, on lines held out, computed in streams side by side."""
    history = trained.header["history"]
    best = min(one["valid_nats"] for one in history)
    deviation = np.std([source.nats(line) for line in source.lines(2000, seed=5)])
    error = 3 * float(deviation) / math.sqrt(TRAIN_LINES / 10) / source.tokens_per_line
    assert source.nats_per_token - error < best < source.nats_per_token + 0.02 + error
    assert history[0]["valid_nats"] > best
    # The context matters: a model that knew letter frequencies alone would be far from it.
    lines = source.lines(2000, seed=6)
    letters, counts = np.unique(list("".join(f"{line}." for line in lines)), return_counts=True)
    parts = counts / counts.sum()
    assert letters.size == 6
    assert -(parts * np.log(parts)).sum() > source.nats_per_token + 0.1


def test_a_model_that_was_not_trained_is_far_above(source: MarkovSource, trained: LoadedModel) -> None:
    """The measure itself can tell: guessing costs ln V."""
    fresh = LanguageModel(trained.model.config)
    fresh.initialise(np.random.default_rng(0))
    lines = source.lines(200, seed=4)
    tokens = sum(len(line) + 1 for line in lines)
    assert nats_by_line(fresh, trained, lines).sum() / tokens > source.nats_per_token + 0.3
