"""The training loop: going on gives the same bits as never having stopped, and a divergence loses nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlm import checkpoint
from charlm.errors import TrainingError
from charlm.models.language_model import LanguageModel
from charlm.training import defaults, loop
from charlm.training.language_task import LanguageTask
from charlm.training.loop import RolledBack, StepDone, Trainer, Validated
from charlm.training.optimiser import Optimiser
from charlm.training.options import TrainingOptions
from charlm.training.state import Progress, Window
from charlm.workflows.model_files import load_model
from charlm.workflows.tokenize import TextOptions
from charlm.workflows.train import TrainResult, run
from charlm.workflows.train_plan import TRAINING_STATE, Plan
from charlm.workflows.train_request import TrainRequest, resume_path
from tests.known_source import MarkovSource
from tests.stub_model import write_tiny_model

Stop = Callable[[int, bool], bool]  # (step, whether it was just validated) -> stop here?


@dataclass
class Watcher:
    """Notes everything, and asks for a stop where it is told to."""

    stop: Stop = lambda step, validated: False
    messages: list[str] = field(default_factory=list)
    steps: list[StepDone] = field(default_factory=list)
    validations: list[Validated] = field(default_factory=list)
    trainer: Trainer | None = None
    wanted: bool = False

    def message(self, text: str) -> None:
        self.messages.append(text)

    def begin(self, plan: Plan, trainer: Trainer) -> None:
        self.trainer = trainer

    def step(self, event: StepDone, trainer: Trainer) -> None:
        self.steps.append(event)
        self.wanted |= self.stop(trainer.state.progress.step, False)

    def validated(self, event: Validated, trainer: Trainer, glimpse: str, *, is_saved: bool) -> None:
        self.validations.append(event)
        self.wanted |= self.stop(trainer.state.progress.step, True)

    def stop_requested(self) -> str | None:
        return "told to" if self.wanted else None


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("\n".join(MarkovSource.draw(mean_length=8.0).lines(70)) + "\n\nabc\nbad\n")
    return str(path)


def request(corpus: str, output: Path, **options: Any) -> TrainRequest:
    chosen = {
        "hidden_size": 8, "embedding_size": 5, "batch_size": 4, "bptt": 8, "cell": "gru", "epochs": 3, "patience": 99,
        "threads": 1,
    }  # fmt: skip
    return TrainRequest([corpus], str(output), log=str(output.with_suffix(".jsonl")), **{**chosen, **options})


def go_on(begun: TrainRequest, **options: Any) -> TrainRequest:
    return TrainRequest(begun.corpus, begun.output, log=begun.log, resume=True, **{"threads": 1, **options})


def arrays(path: str, kind: str = "model") -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in checkpoint.load(path, kind=kind).arrays.items()}


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        others = ("seconds", "command", "sessions")
        return {key: without_seconds(one) for key, one in value.items() if key not in others}
    return [without_seconds(one) for one in value] if isinstance(value, list) else value


def log_lines(path: str | None, *, ends: bool = True) -> list[Any]:
    assert path is not None
    lines = [without_seconds(json.loads(line)) for line in Path(path).read_text().splitlines()]
    return lines if ends else [line for line in lines if line["event"] != "end"]


def assert_same(a: TrainRequest, b: TrainRequest, *, ends: bool = True) -> None:
    """The same bits in both files, the same numbers, the same lines in the log."""
    assert arrays(a.output) == arrays(b.output)
    paths = resume_path(a.output), resume_path(b.output)
    assert arrays(paths[0], TRAINING_STATE) == arrays(paths[1], TRAINING_STATE)
    for kind, one, other in (("model", a.output, b.output), (TRAINING_STATE, *paths)):
        headers = [without_seconds(checkpoint.load(path, kind=kind).header) for path in (one, other)]
        assert headers[0] == headers[1]
    assert log_lines(a.log, ends=ends) == log_lines(b.log, ends=ends)


# ---- train(2N) = train(N), then resume(N) ----

VARIANTS: dict[str, dict[str, Any]] = {
    "lines, adamw, cosine": {"dropout": 0.3, "initial_state": "random"},
    "file, sgd, plateau": {
        "text": TextOptions(sequence="file"), "optimizer": "sgd", "schedule": "plateau", "lr": 3.0, "dropout": 0.2,
        "variational": True, "clip": 0.0,
    },
    "paragraphs, adamw, constant": {
        "text": TextOptions(sequence="paragraph"), "schedule": "constant", "clip_mode": "value", "clip": 0.01,
        "weight_decay": 0.1, "cell": "lstm-peephole", "num_layers": 2, "initial_state": "random",
    },
    "no validation": {"valid_frac": 0.0, "dropout": 0.5, "tie_weights": True, "embedding_size": 8},
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_resumed_is_as_if_never_stopped(corpus: str, tmp_path: Path, name: str) -> None:
    whole = request(corpus, tmp_path / "whole.npz", **VARIANTS[name])
    result = run(whole, Watcher())
    total, epoch = result.steps, result.steps // 3
    assert epoch >= 10
    for stop in (1, epoch // 2, epoch, epoch + 3, total - 1, total):
        begun = request(corpus, tmp_path / "parts.npz", **VARIANTS[name])
        first = run(begun, Watcher(lambda step, validated, stop=stop: step == stop and not validated))
        assert (first.steps, first.interrupted) == (stop, True)
        assert load_model(begun.output, 1).model.parameters.count == result.parameters  # there is always a model
        second = run(go_on(begun), Watcher())
        assert replace(second, seconds=0, tokens_per_second=0, model="") == replace(
            result, seconds=0, tokens_per_second=0, model=""
        )
        assert_same(whole, begun)


def test_stopped_after_every_step_and_validation_within_epochs(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defaults, "LONGEST_INTERVAL", 7)  # several in an epoch
    options = {"epochs": 2, "dropout": 0.3, "schedule": "plateau", "patience": 50}
    whole = request(corpus, tmp_path / "whole.npz", **options)
    watcher = Watcher()
    result = run(whole, watcher)
    epoch = result.steps // 2
    assert len(watcher.validations) == 2 * math.ceil(epoch / 7)  # every 7 steps, and after each epoch
    begun = request(corpus, tmp_path / "parts.npz", **options)
    part = run(begun, Watcher(lambda step, validated: True))
    while part.interrupted:
        part = run(go_on(begun, threads=1 + part.steps % 3), Watcher(lambda step, validated: validated or step % 5 < 2))
    assert_same(whole, begun)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_more_epochs_can_be_added(corpus: str, tmp_path: Path, schedule: str) -> None:
    whole = request(corpus, tmp_path / "whole.npz", epochs=4, schedule=schedule, dropout=0.2)
    run(whole, Watcher())
    begun = request(corpus, tmp_path / "parts.npz", epochs=2, schedule=schedule, dropout=0.2)
    assert run(begun, Watcher()).epochs == 2
    assert run(go_on(begun, epochs=4), Watcher()).epochs == 4
    assert_same(whole, begun, ends=False)


def test_more_epochs_go_on_along_the_cosine(corpus: str, tmp_path: Path) -> None:
    begun = request(corpus, tmp_path / "model.npz", epochs=1)
    run(begun, Watcher())
    watcher = Watcher()
    result = run(go_on(begun, epochs=2), watcher)
    assert (result.epochs, result.reason) == (2, "2 epochs done")
    assert watcher.steps[0].lr > 10 * watcher.steps[-1].lr


def test_a_finished_training_ends_at_once(corpus: str, tmp_path: Path) -> None:
    begun = request(corpus, tmp_path / "model.npz")
    run(begun, Watcher())
    before = arrays(begun.output), arrays(resume_path(begun.output), TRAINING_STATE)
    watcher = Watcher()
    assert run(go_on(begun), watcher).reason == "3 epochs done"
    assert watcher.steps == []
    assert (arrays(begun.output), arrays(resume_path(begun.output), TRAINING_STATE)) == before


@pytest.mark.parametrize("options", [{}, {"text": TextOptions(sequence="file"), "batch_size": 7, "num_layers": 2}])
def test_threads_change_no_bit(corpus: str, tmp_path: Path, options: dict[str, Any]) -> None:
    runs = [
        request(corpus, tmp_path / f"{threads}.npz", threads=threads, epochs=1, dropout=0.3, **options)
        for threads in (1, 2, 3)
    ]
    for one in runs:
        run(one, Watcher())
        assert_same(runs[0], one)


def test_seeds_change_bits(corpus: str, tmp_path: Path) -> None:
    a, b = (request(corpus, tmp_path / f"{seed}.npz", epochs=1, seed=seed) for seed in (1, 2))
    run(a, Watcher())
    run(b, Watcher())
    assert arrays(a.output) != arrays(b.output)


def test_the_best_weights_are_kept(corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([2.0, 1.0, 1.5, 1.0, 3.0])
    seen = []

    def validation_nats(task: LanguageTask) -> float:
        seen.append({path: view.tobytes() for path, view in task.model.parameters.items()})
        return next(losses)

    monkeypatch.setattr(LanguageTask, "validation_nats", validation_nats)
    begun = request(corpus, tmp_path / "model.npz", epochs=5)
    watcher = Watcher()
    assert run(begun, watcher).best_valid_nats == 1.0
    assert [event.improved for event in watcher.validations] == [True, True, False, False, False]
    assert arrays(begun.output) == seen[1]
    history = load_model(begun.output, 1).header["history"]
    assert [one["valid_nats"] for one in history] == [2.0, 1.0]
    state = checkpoint.load(resume_path(begun.output), kind=TRAINING_STATE)
    assert state.header["progress"]["best_nats"] == 1.0
    assert {path: state.arrays[f"parameters/{path}"].tobytes() for path in seen[4]} == seen[4]


def test_patience(corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([2.0, 1.0, 1.5, 1.4, 1.3])
    monkeypatch.setattr(LanguageTask, "validation_nats", lambda trainer: next(losses))
    result = run(request(corpus, tmp_path / "model.npz", epochs=50, patience=3, schedule="plateau"), Watcher())
    assert (result.epochs, result.reason) == (5, "no improvement in 3 validations")


# ---- divergence ----


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], bool]], None]:
    """Make the loss NaN at some calls."""
    original, calls = LanguageModel.loss_and_gradients, 0

    def poison(chosen: Callable[[int], bool]) -> None:
        def loss_and_gradients(*arguments: Any) -> float:
            nonlocal calls
            calls += 1
            loss_nats = original(*arguments)
            return math.nan if chosen(calls) else loss_nats

        monkeypatch.setattr(LanguageModel, "loss_and_gradients", loss_and_gradients)

    return poison


def lowered(watcher: Watcher) -> int:
    return sum("rate lowered to" in message for message in watcher.messages)


@pytest.mark.parametrize("options", [{}, {"clip": 0.0}, {"clip": 0.0, "optimizer": "sgd"}, {"clip_mode": "value"}])
@pytest.mark.parametrize("valid_frac", [0.0, 0.1])
def test_a_rate_much_too_high(corpus: str, tmp_path: Path, options: dict[str, Any], valid_frac: float) -> None:
    begun = request(corpus, tmp_path / "model.npz", lr=100.0, valid_frac=valid_frac, **{"epochs": 6, **options})
    watcher = Watcher()
    result = run(begun, watcher)
    assert result.epochs == 6
    assert result.train_nats is not None
    assert result.train_nats < math.log(8) + 1
    assert all(math.isfinite(one["train_nats"]) for one in load_model(begun.output, 1).header["history"])
    assert lowered(watcher) >= 1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("valid_frac", [0.0, 0.1])
def test_a_rate_beyond_all_measure(corpus: str, tmp_path: Path, optimizer: str, valid_frac: float) -> None:
    """Too high to be mended: it gives up, and nothing that is not finite is written."""
    begun = request(corpus, tmp_path / "model.npz", lr=1e38, clip=0.0, optimizer=optimizer, valid_frac=valid_frac)
    watcher = Watcher()
    with pytest.raises(TrainingError, match=r"no model was written: begin anew with a lower --lr"):
        run(begun, watcher)
    assert lowered(watcher) == loop.ROLLBACKS
    assert not Path(begun.output).exists()


def test_one_poisoned_chunk(corpus: str, tmp_path: Path, poisoned: Callable[..., None]) -> None:
    poisoned(lambda call: call == 30)
    begun = request(corpus, tmp_path / "model.npz", schedule="constant", warmup=0, lr=0.01)
    watcher = Watcher()
    result = run(begun, watcher)
    epoch = result.steps // 3
    back = 29 // epoch * epoch  # to the last validation
    (message,) = watcher.messages
    assert message.startswith("step 30: the loss is nan, near '")
    assert len(message.split("'")[1]) > 10  # a piece of the text
    assert message.endswith(f"; back to step {back}, rate lowered to 0.005")
    assert [event.lr for event in watcher.steps[:29]] == [0.01] * 29
    assert {event.lr for event in watcher.steps[29:]} == {0.005}
    assert result.epochs == 3
    events = [line["event"] for line in log_lines(begun.log)]
    assert events.count("rollback") == 1
    # What is done again is done as the first time, but for the rate.
    assert watcher.steps[29].loss_nats == watcher.steps[back].loss_nats
    assert watcher.trainer is not None
    assert watcher.trainer.state.progress.rollbacks == 1


def test_a_run_that_lowered_its_rate_can_be_resumed(corpus: str, tmp_path: Path, poisoned: Callable[..., None]) -> None:
    poisoned(lambda call: call == 5)
    begun = request(corpus, tmp_path / "model.npz", schedule="constant", warmup=0, lr=0.01)
    run(begun, Watcher(lambda step, validated: step == 8))
    watcher = Watcher()
    run(go_on(begun), watcher)
    assert {event.lr for event in watcher.steps} == {0.005}


def test_it_gives_up(corpus: str, tmp_path: Path, poisoned: Callable[..., None]) -> None:
    poisoned(lambda call: call > 40)
    begun = request(corpus, tmp_path / "model.npz", schedule="constant", warmup=0)
    watcher = Watcher()
    with pytest.raises(TrainingError) as caught:
        run(begun, watcher)
    assert str(caught.value).count("\n") == 0
    assert "the loss is nan at step" in str(caught.value)
    assert "the best model is in place: begin anew with a lower --lr" in str(caught.value)
    assert lowered(watcher) == loop.ROLLBACKS
    loaded = load_model(begun.output, 1)
    assert loaded.header["history"]
    # Nothing stands in the way of a new training.
    poisoned(lambda call: False)
    assert run(replace(begun, lr=0.001), Watcher()).epochs == 3


def test_what_a_divergence_goes_back_to_is_kept_once(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same arrays hold it to the end, and it is the state before a step that turned out well."""
    monkeypatch.setattr(loop, "SNAPSHOT_STEPS", 5)
    begun = request(corpus, tmp_path / "m.npz", initial_state="random")
    seen: dict[int, dict[str, np.ndarray]] = {}

    class Looker(Watcher):
        def begin(self, plan: Plan, trainer: Trainer) -> None:
            super().begin(plan, trainer)
            assert plan.saved is plan.origin is None  # their arrays would be held as well

        def step(self, event: StepDone, trainer: Trainer) -> None:
            super().step(event, trainer)
            progress = trainer.state.progress
            now = {name: array.copy() for name, array in trainer.state.arrays().items()}
            assert trainer.safe is not None
            kept, numbers = trainer.safe
            places.add(tuple(array.ctypes.data for array in kept.values()))
            if numbers["step"] in seen and progress.step - numbers["step"] == 1:
                compared.append(numbers["step"])
                for name, array in seen[numbers["step"]].items():
                    assert np.array_equal(kept[name], array), name
            seen[progress.step] = now

    places: set[tuple[int, ...]] = set()
    compared: list[int] = []
    run(begun, Looker())
    assert len(places) == 1
    assert len(compared) > 4
    assert {step % 5 for step in compared} >= {0}
    run(go_on(begun, epochs=4), Looker())


def test_giving_up_keeps_what_was_not_validated_yet(
    corpus: str, tmp_path: Path, poisoned: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SNAPSHOT_STEPS", 5)
    poisoned(lambda call: call > 8)
    begun = request(corpus, tmp_path / "model.npz")
    watcher = Watcher()
    with pytest.raises(TrainingError, match="the best model is in place"):
        run(begun, watcher)
    assert len(watcher.validations) == 1
    assert load_model(begun.output, 1).header["history"][0]["step"] == 5


def test_nothing_learnt_is_no_model(corpus: str, tmp_path: Path, poisoned: Callable[..., None]) -> None:
    poisoned(lambda call: True)
    begun = request(corpus, tmp_path / "model.npz")
    watcher = Watcher()
    with pytest.raises(TrainingError, match=r"at step 1, before any weight was changed; no model was written"):
        run(begun, watcher)
    assert not Path(begun.output).exists()
    assert lowered(watcher) == 0  # a lower rate would change nothing


def test_a_validation_that_is_not_finite_is_a_divergence(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = LanguageTask.validation_nats, iter([math.nan, 0, math.inf, *[0] * 99])
    monkeypatch.setattr(LanguageTask, "validation_nats", lambda trainer: next(calls) or original(trainer))
    begun = request(corpus, tmp_path / "model.npz")
    watcher = Watcher()
    result = run(begun, watcher)
    assert result.epochs == 3
    assert "the validation loss is nan; back to step 0" in watcher.messages[0]
    assert "the validation loss is inf; back to step" in watcher.messages[1]
    assert len(load_model(begun.output, 1).header["history"]) >= 1


@pytest.mark.parametrize("valid_frac", [0.0, 0.1])
@pytest.mark.parametrize("factor", [1e4, math.inf])
def test_weights_gone_wrong_are_no_place_to_go_back_to(
    corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, valid_frac: float, factor: float
) -> None:
    """The step after which the state is recorded blows the weights up; only the next loss shows it."""
    begun = request(corpus, tmp_path / "model.npz", valid_frac=valid_frac)
    watcher = Watcher()
    run(replace(begun, output=str(tmp_path / "other.npz")), watcher)
    epoch = len(watcher.steps) // 3
    original, blown = Optimiser.step, []

    def step(self: Optimiser, *arguments: Any) -> None:
        original(self, *arguments)
        if self.steps == 2 * epoch and not blown:
            blown.append(True)
            with np.errstate(invalid="ignore"):
                self._parameters.flat[...] *= factor

    monkeypatch.setattr(Optimiser, "step", step)
    watcher = Watcher()
    run(begun, watcher)
    assert blown
    assert len(watcher.messages) == 1
    assert f"; back to step {epoch}, rate lowered" in watcher.messages[0]
    assert watcher.validations[-1].train_nats < math.log(7)
    parameters = load_model(begun.output, 1).model.parameters.flat
    assert np.abs(parameters).max() < 100


def test_a_high_first_loss_is_no_divergence(corpus: str, tmp_path: Path) -> None:
    """Weights that come from another text may find this one very unlikely."""
    write_tiny_model(tmp_path / "origin.npz", "abcdxyz", biases={"z": 40.0})
    watcher = Watcher()
    whole = TrainRequest([corpus], str(tmp_path / "m.npz"), init_from=str(tmp_path / "origin.npz"), epochs=2, lr=0.1)
    run(whole, watcher)
    assert watcher.steps[0].loss_nats > 30
    assert lowered(watcher) == 0
    assert watcher.validations[-1].train_nats < watcher.steps[0].loss_nats


# ---- the state ----


def test_progress_to_json_and_back() -> None:
    progress = Progress(3, 1, 2, best_nats=1.5, log=Window(1.0, 2, 3, 1), history=[{"step": 1}])
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress


def broken_numbers() -> Iterator[dict[str, Any]]:
    good = Progress().to_json()
    yield {key: value for key, value in good.items() if key != "halvings"}
    yield good | {"more": 1}
    for name, value in [
        ("step", "1"), ("step", 1.5), ("step", True), ("seconds", None), ("best_nats", "low"), ("log", 3),
        ("log", {"loss_nats": 1.0}), ("interval", {**good["log"], "steps": "many"}), ("history", {}), ("history", [1]),
    ]:  # fmt: skip
        yield good | {name: value}


@pytest.mark.parametrize("numbers", list(broken_numbers()))
def test_malformed_progress_is_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="its numbers"):
        Progress.from_json(numbers)


@pytest.mark.parametrize(
    "change", [{"lr": "fast"}, {"bptt": 1.5}, {"variational": 1}, {"batch_size": 0}, {"patience": "none"}, {"more": 1}]
)
def test_malformed_options_are_refused(change: dict[str, Any]) -> None:
    good = {**TrainingOptions(4, 8, 3, 0.1).__dict__}
    assert TrainingOptions.from_json(good) == TrainingOptions(4, 8, 3, 0.1)
    with pytest.raises(ValueError, match="its training options"):
        TrainingOptions.from_json(good | change)


def test_rolled_back_event_has_the_numbers(corpus: str, tmp_path: Path, poisoned: Callable[..., None]) -> None:
    poisoned(lambda call: call in (4, 5))
    watcher = Watcher(lambda step, validated: step == 2)
    begun = request(corpus, tmp_path / "model.npz", schedule="constant", warmup=0, lr=0.08)
    result: TrainResult = run(begun, watcher)
    assert result.steps == 2
    assert watcher.trainer is not None
    events = [event for event, _ in zip(watcher.trainer.run(), range(6), strict=False)]
    rollbacks = [event for event in events if isinstance(event, RolledBack)]
    assert [(one.step, one.back_to_step, one.lr) for one in rollbacks] == [(4, 0, 0.04), (1, 0, 0.01)]
    assert all(one.example is not None and one.example.targets.shape == (8, 4) for one in rollbacks)
