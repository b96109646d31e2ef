"""Numbers that go wrong: rates and weights beyond all measure, texts of one symbol, logits of +-10,000, long sums.

A message says what happened and where, the best model so far stays good, and what is no number is never a result.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from charlm import checkpoint
from charlm.cli.main import main
from charlm.engine import layers
from charlm.engine.mixture import mix
from charlm.models.buffers import Buffers
from charlm.models.parameters import Parameters
from charlm.models.softmax import AdaptiveSoftmax, Softmax
from charlm.text.batches import Chunk
from charlm.training import loop
from charlm.training.language_task import LanguageTask
from charlm.training.state import Window
from charlm.workflows.score_results import Total

ROOT = Path(__file__).parents[1]
LITTLE = ["--hidden-size", "8", "--num-layers", "1", "--threads", "1"]
SMALL = [*LITTLE, "--epochs", "2"]
NO_NUMBERS = (
    "gives no finite number (NaN or infinity), its weights are damaged or grew too large; copy it afresh, or train it "
    "again with a lower --lr"
)

Run = Callable[..., Result]


@pytest.fixture
def charlm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a folder of its own; a warning is an error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, text: str = "", code: int = 0) -> Result:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = CliRunner().invoke(main, arguments, input=text)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        assert "Warning" not in result.output
        return result

    return run


def names(count: int = 60) -> str:
    return "".join((ROOT / "corpora" / "dinosaurs.txt").read_text().splitlines(keepends=True)[:count])


def is_good(charlm: Run, model: str, text: str) -> None:
    """A model loads and gives finite scores."""
    figures = json.loads(charlm("score", model, "-", "--per", "corpus", "--json", text=text).stdout)
    assert math.isfinite(figures["log_prob_nats"])
    assert figures["log_prob_nats"] <= 0


# ---- rates ----


@pytest.mark.parametrize("options", [["--clip", "0"], ["--optimizer", "sgd", "--clip", "0"], []])
@pytest.mark.parametrize("rate", ["100", "1e6"])
def test_a_rate_much_too_high_is_told_and_mended(charlm: Run, rate: str, options: list[str]) -> None:
    Path("names.txt").write_text(names())
    result = charlm("train", "names.txt", "-o", "m.npz", *SMALL, "--lr", rate, *options)
    told = [line for line in result.stderr.splitlines() if "rate lowered to" in line]
    assert told
    assert all(line.startswith("charlm: step ") and "nats a token, near '" in line for line in told)
    assert "nan" not in result.stderr
    assert "m.npz is ready" in result.stderr
    is_good(charlm, "m.npz", names(5))


@pytest.mark.parametrize(("task", "corpus"), [("classify", "towns.tsv"), ("tag", "visits.conll")])
def test_a_rate_that_cannot_be_mended_ends_in_one_line(charlm: Run, task: str, corpus: str) -> None:
    lines = (ROOT / "corpora" / corpus).read_text().splitlines(keepends=True)[:120]
    Path(corpus).write_text("".join(lines) + "\n")
    result = charlm("train", corpus, "-o", "m.npz", "--task", task, *SMALL, "--lr", "1e30", "--clip", "0", code=1)
    last = result.stderr.splitlines()[-1]
    assert last.startswith("charlm: error: the loss ")
    assert "at step 2, after 8 times at lower rates; no model was written: begin anew with a lower --lr" in last
    assert not Path("m.npz").exists()


def test_the_best_model_outlives_rates_that_go_wild(charlm: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("names.txt").write_text(names())
    steps = 6
    monkeypatch.setattr(loop, "rate_factor", lambda schedule, step, *rest: 1.0 if step < steps else 1e32)
    options = ["--epochs", "3", "--schedule", "constant", "--bptt", "16", "--batch-size", "8", "--quiet"]
    result = charlm("train", "names.txt", "-o", "m.npz", *LITTLE, *options, code=1)
    lines = result.stderr.splitlines()
    assert [f"; back to step {steps}, rate lowered to " in line for line in lines] == [True] * 8 + [False]
    assert lines[-1].endswith("the best model is in place: begin anew with a lower --lr or a smaller --clip")
    assert [record["step"] for record in checkpoint.load("m.npz").header["history"]] == [steps]
    is_good(charlm, "m.npz", names(5))


# ---- weights ----


def blown_up(source: str, target: str, value: float, *, mixed: bool = False) -> None:
    """A model whose weights are all of this size, with signs at random if ``mixed``."""
    loaded = checkpoint.load(source)
    rng = np.random.default_rng(0)
    for array in loaded.arrays.values():
        array[...] = value * (rng.choice([-1, 1], array.shape) if mixed else 1)
    checkpoint.save(target, loaded.header, loaded.arrays)


@pytest.mark.parametrize("softmax", ["full", "adaptive"])
def test_huge_weights_give_numbers_or_an_error(charlm: Run, softmax: str) -> None:
    Path("names.txt").write_text(names())
    charlm("train", "names.txt", "-o", "good.npz", *LITTLE, "--epochs", "1", "--softmax", softmax, "--quiet")
    errors = 0
    for value, mixed in ((1e30, False), (1e30, True), (3e38, False), (3e38, True)):
        blown_up("good.npz", "huge.npz", value, mixed=mixed)
        for command in (
            ["score", "huge.npz", "-"], ["score", "huge.npz", "-", "--per", "token", "--json"],
            ["score", "huge.npz", "-", "--per", "corpus"], ["sample", "huge.npz", "-n", "2", "--log-prob"],
            ["sample", "huge.npz", "--prompt", "a", "--greedy", "--log-prob"], ["sample", "huge.npz", "--beam", "2"],
            ["gradients", "huge.npz", "-", "--steps", "2"],
        ):  # fmt: skip
            result = CliRunner().invoke(main, command, input=names(5))
            assert "nan" not in result.stdout.lower().replace("banana", ""), command
            assert "-inf" not in result.stdout
            if result.exit_code:
                errors += 1
                assert (result.exit_code, result.stdout) == (1, "")
                assert result.stderr.endswith(f"{NO_NUMBERS}\n")
                assert result.stderr.count("\n") == 1
    assert errors > 5


@pytest.mark.parametrize(
    ("task", "corpus", "text"),
    [("classify", "towns.tsv", "ab\n"), ("tag", "visits.conll", "Ada\nis\n\n"), ("transduce", "sounds.tsv", "ab\n")],
)
def test_predictions_of_huge_weights_are_an_error(charlm: Run, task: str, corpus: str, text: str) -> None:
    lines = (ROOT / "corpora" / corpus).read_text().splitlines(keepends=True)[:60]
    Path(corpus).write_text("".join(lines) + "\n" * (task == "tag"))
    charlm("train", corpus, "-o", "good.npz", "--task", task, *LITTLE, "--epochs", "1", "--quiet")
    blown_up("good.npz", "huge.npz", 3e38)
    for arguments in (["-"], ["-", "--json"], [corpus, "--evaluate"]):
        result = charlm("predict", "huge.npz", *arguments, text=text, code=1)
        assert result.stdout == ""
        assert result.stderr.endswith(f"{NO_NUMBERS}\n")


def test_to_begin_with_weights_that_give_no_number_is_an_error_at_once(charlm: Run) -> None:
    Path("names.txt").write_text(names())
    charlm("train", "names.txt", "-o", "good.npz", *LITTLE, "--epochs", "1", "--quiet")
    blown_up("good.npz", "huge.npz", 3e38)
    result = charlm("train", "names.txt", "-o", "m.npz", "--init-from", "huge.npz", "--epochs", "1", "--quiet", code=1)
    assert result.stderr == (
        "charlm: error: the loss is nan at step 1, before any weight was changed; no model was written: begin with "
        "other weights, without --init-from or with another model\n"
    )
    assert not Path("m.npz").exists()


# ---- texts ----


@pytest.mark.parametrize("text", ["a" * 3000 + "\n", "abc abd\n" * 100, "aaaa\nb\n"])
@pytest.mark.parametrize("options", [[], ["--sequence", "file"], ["--level", "word", "--valid-frac", "0"]])
def test_a_text_of_next_to_nothing(charlm: Run, text: str, options: list[str]) -> None:
    Path("text").write_text(text)
    result = CliRunner().invoke(main, ["train", "text", "-o", "m.npz", *SMALL, *options])
    assert "nan" not in result.output
    if result.exit_code:
        assert (result.exit_code, result.stderr.count("error")) == (1, 1)
        assert not Path("m.npz").exists()
        return
    is_good(charlm, "m.npz", text)
    charlm("sample", "m.npz", "--max-length", "20")


def test_a_validation_text_of_unknowns_alone(charlm: Run) -> None:
    Path("names.txt").write_text(names())
    Path("valid.txt").write_text("ααα\nβββ\n")
    result = charlm("train", "names.txt", "-o", "m.npz", *SMALL, "--valid", "valid.txt")
    assert "best so far\n" in result.stderr
    assert "nan" not in result.stderr
    is_good(charlm, "m.npz", "ααα\n")


# ---- logits of +-10,000 ----

EXTREME = np.random.default_rng(5).choice([-1e4, 1e4, 9999.0, 0.0, -3.5], (6, 4, 23)).astype(np.float32)
EXTREME[0, 0], EXTREME[0, 1] = 1e4, -1e4  # all alike
EXTREME[1, 0, :] = -1e4
EXTREME[1, 0, 3] = 1e4


def log_softmax(logits: Any) -> Any:
    """In float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def test_the_softmax_of_extreme_logits() -> None:
    targets = np.random.default_rng(6).integers(0, 23, (6, 4)).astype(np.int32)
    wanted = np.take_along_axis(log_softmax(EXTREME), targets[:, :, np.newaxis], axis=2)[:, :, 0]
    losses, scores = np.empty((6, 4)), np.empty((6, 4))
    gradient = EXTREME.copy()
    layers.cross_entropy(gradient, targets, losses, 0.25, 0, 4)
    layers.target_log_probs(EXTREME.copy(), targets, scores, 0, 4)
    np.testing.assert_allclose(-losses, wanted, rtol=2e-7, atol=2e-7)
    np.testing.assert_array_equal(-losses, scores)
    one_hot = np.eye(23)[targets]
    np.testing.assert_allclose(gradient, 0.25 * (np.exp(log_softmax(EXTREME)) - one_hot), rtol=1e-6, atol=1e-7)
    whole = np.empty((4, 23))
    for step in EXTREME:
        layers.log_softmax(step[np.newaxis].copy(), whole, 0, 4)
        np.testing.assert_allclose(whole, log_softmax(step), rtol=2e-7, atol=2e-7)
        assert np.isfinite(whole).all()


@pytest.mark.parametrize("kind", ["full", "adaptive"])
def test_output_layers_with_extreme_logits(kind: str) -> None:
    """Weights and states of powers of two, so that float32 holds every logit; the reference is float64's."""
    symbols, size, rows = 40, 8, 6
    results = []
    for dtype in (np.float32, np.float64):
        sizes = symbols, size
        shapes = Softmax.shapes(*sizes, tied=False) if kind == "full" else AdaptiveSoftmax.shapes(*sizes)
        parameters, buffers = Parameters(shapes, dtype), Buffers(dtype)
        gradients = parameters.like()
        arrays = parameters, gradients, buffers
        output: Any = Softmax(sizes, False, *arrays) if kind == "full" else AdaptiveSoftmax(sizes, *arrays)
        rng = np.random.default_rng(7)
        for path, view in parameters.items():
            view[...] = rng.choice([-1024.0, 0.0, 1024.0], view.shape) if path.endswith("/w") else 0
            if path.endswith("w_z"):
                view[...] = rng.choice([-1.0, 0.0, 1.0], view.shape)
        hidden = rng.choice([-1.0, 0.5, 1.0], (2, rows, size)).astype(dtype)
        targets = rng.integers(0, symbols, (2, rows)).astype(np.int32)
        losses, d_hidden = np.empty((2, rows)), np.empty((2, rows, size), dtype)
        output.pack(0, 1, backward=True)
        output.begin(hidden, targets)
        output.loss(losses, 1 / 12, d_hidden, 0, rows)
        output.sum_gradients(0, 1)
        assert np.isfinite(losses).all()
        results.append((losses, d_hidden, gradients.flat))
    (losses, *others), (exact, *references) = results
    assert exact.max() > 5000
    np.testing.assert_allclose(losses, exact, rtol=3e-7, atol=3e-7)
    for found, reference in zip(others, references, strict=True):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, reference, rtol=1e-4, atol=1e-4 * np.abs(reference).max())


def test_labels_whose_texts_are_10_000_nats_apart() -> None:
    label_nats = np.array([[-1e4, -1.0, -2e4], [-2e4, -1.0, -1e4], [-3e4, -3e4, -3e4]])
    nats, posterior_nats = np.empty(3), np.empty((2, 3))
    mix(label_nats, np.array([1, 3]), np.log([0.5, 0.25, 0.25]), nats, posterior_nats)
    np.testing.assert_allclose(nats[0], -1e4 + math.log(0.5), rtol=1e-14)
    np.testing.assert_allclose(nats[1] + nats[2], -1e4 - 1 + math.log(0.25), rtol=1e-14)
    assert np.isfinite(posterior_nats).all()
    assert np.exp(posterior_nats).argmax(axis=1).tolist() == [0, 1]


# ---- long sums ----

TOKENS = 10_000_000


@pytest.fixture(scope="module")
def losses() -> Any:
    """Of ten million tokens, as float32 models give them: nats."""
    return np.random.default_rng(8).exponential(2.5, TOKENS)


@pytest.fixture(scope="module")
def exact(losses: Any) -> float:
    return math.fsum(losses)


def test_the_total_of_a_long_text(losses: Any, exact: float) -> None:
    """In windows as `score` makes them of a file, and of one line each, as of a slow pipe."""
    for window in (1 << 18, 20):
        total = Total()
        for nats in np.add.reduceat(losses, np.arange(0, TOKENS, window)).tolist():
            total.add(-nats)
        assert abs(total.value + exact) <= 4e-16 * exact


def test_a_total_keeps_what_plain_addition_loses() -> None:
    total = Total()
    for number in (1e16, *[1.0] * 1000, -1e16):
        total.add(number)
    assert total.value == 1000
    assert Total().value == 0
    total.add(-math.inf)
    assert total.value == -math.inf


def test_the_sums_of_a_long_training(losses: Any, exact: float) -> None:
    window = Window()
    for step in np.split(losses, TOKENS // 2000):
        window.loss_nats += float(step.sum())  # as the models and the loop do
        window.tokens += step.size
    assert abs(window.nats_per_token * TOKENS - exact) <= 1e-12 * exact


def test_the_loss_of_a_long_validation_text(losses: Any, exact: float) -> None:
    class Model:
        """Gives the losses in order."""

        place = 0

        def zero_state(self, rows: int) -> Any:
            return np.zeros((1, 1, rows, 1))

        def log_probs(self, inputs: Any, targets: Any, state: Any) -> Any:
            first, self.place = self.place, self.place + targets.size
            return -losses[first : self.place].reshape(targets.shape)

    task: Any = LanguageTask.__new__(LanguageTask)
    ids = np.zeros((125, 80), np.int32)
    task.model, task._validation = Model(), lambda: (Chunk(ids, ids, ids.size) for _ in range(TOKENS // ids.size))
    nats, _ = task.validation()
    assert abs(nats * TOKENS - exact) <= 1e-14 * exact
