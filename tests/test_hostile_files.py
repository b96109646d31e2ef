"""Files that no user should trust: some from the harness, and each fault that it has found."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlm.workflows import configs, score
from tests.faults.hostile_archive import Archive
from tests.faults.hostile_files import FILE, STATE, Place, make
from tests.faults.hostile_models import consistent
from tests.faults.hostile_mutations import set_canary
from tests.faults.hostile_seeds import Seed, make_seeds
from tests.faults.hostile_worker import Outcome, fault_of, run

FILES = 30


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seed]:
    """A good file of every kind, by name."""
    folder = tmp_path_factory.mktemp("seeds")
    set_canary(folder / "canary")
    return {seed.name: seed for seed in make_seeds(folder)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Commands run in this process, in a folder of their own."""
    place = Place(tmp_path / "place", in_process=True)
    monkeypatch.chdir(place.folder)
    yield place
    place.close()


def test_some_files_of_the_harness(seeds: dict[str, Seed], place: Place) -> None:
    faults = []
    for number in range(FILES):
        hostile = make(number, 7, list(seeds.values()))
        for arguments, outcome, fault in place.use(hostile):
            # A process among others has no limits of its own.
            if fault is not None and not fault.startswith("took "):
                faults.append((number, hostile.kind, hostile.what, arguments, fault, outcome.err))
    assert faults == []
    assert not next(iter(seeds.values())).path.with_name("canary").exists()


def test_a_file_can_be_made_again(seeds: dict[str, Seed]) -> None:
    every = list(seeds.values())
    for number in range(30):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one, other = make(number, 3, every), make(number, 3, every)
        assert (one.kind, one.what, one.data) == (other.kind, other.what, other.data)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"code": 0, "err": "sentences 3\n"}, None),
        ({"code": 2, "err": "charlm: error: no such option\n"}, None),
        ({"err": "charlm: a remark\ncharlm: error: m.npz: damaged\n"}, None),
        ({"code": -11, "err": ""}, "ended with -11"),
        ({"code": None}, "ended with None"),
        ({"err": "Traceback (most recent call last)\n"}, "an internal error"),
        ({"err": "charlm: error: internal error, KeyError: 1\n"}, "an internal error"),
        ({"err": ""}, "0 error lines with exit code 1"),
        ({"code": 0}, "1 error lines with exit code 0"),
        ({"err": "charlm: error: m.npz: a\ncharlm: error: m.npz: b\n"}, "2 error lines"),
        ({"err": "charlm: error: m.npz: a\nb\n"}, "1 error lines"),
        ({"err": "charlm: error: m.npz: \x1b[31m\n"}, "a control character"),
        ({"err": "charlm: error: damaged\n"}, "does not name the file"),
        ({"err": "charlm: error: m.npz" + "x" * 5000}, "more than 4,000 characters"),
        ({"code": 0, "err": "", "out": "1\t-nan\tabc\n"}, "no number"),
        ({"code": 0, "err": "", "out": "Infinity\n"}, "no number"),
        ({"code": 0, "err": "", "out": '{"log_prob": null}\n'}, "no number"),
        ({"seconds": 5.1}, "took 5.1 s"),
        ({"megabytes": 501.0}, "took 501 MB"),
    ],
)
def test_what_the_harness_takes_for_a_fault(changes: dict[str, Any], fault: str | None) -> None:
    good: dict[str, Any] = {"code": 1, "out": "", "err": "charlm: error: m.npz: no\n", "seconds": 0.1, "megabytes": 9.0}
    found = fault_of(Outcome(**(good | changes)), "m.npz")
    assert found is None if fault is None else found is not None and fault in found


# ---- what was found ----


def changed(seed: Seed, changes: dict[str, Any], **arrays: Any) -> bytes:
    """A seed with other values in its header, by paths such as ``model/num_layers``, and other arrays."""
    archive = Archive.read(seed.path.read_bytes())
    for path, value in changes.items():
        *parents, last = path.split("/")
        part = archive.header
        for parent in parents:
            part = part[parent]
        part[last] = value
    for name, change in arrays.items():
        name = name.replace("__", "/")
        archive.arrays[name] = change(archive.arrays[name])
    archive.declare()
    return archive.write()


def refusal(arguments: Sequence[str], file: str, data: bytes) -> str:
    """The one line with which a command refuses a file in the working folder."""
    Path(file).write_bytes(data)
    outcome = run(arguments)
    assert outcome.code == 1, outcome.err
    assert fault_of(outcome, file) is None, outcome.err
    assert outcome.out == ""
    return outcome.err


def sample(data: bytes, *options: str) -> str:
    return refusal(["sample", FILE, "--seed", "1", *options], FILE, data)


def resume(seed: Seed, data: bytes) -> str:
    return refusal(["train", str(seed.corpus), "-o", "out.npz", "--resume", "--quiet"], STATE, data)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model/num_layers": 1 << 20}, "num_layers is 1048576"),
        ({"model/num_layers": 65}, "num_layers is 65"),
        ({"schema": 10**30}, "is too large a number"),
        ({"tokenizer/level": "x" * 9000}, "x ... x"),
        ({"tokenizer/lowercase": "x" * 9000}, "the tokenizer's lowercase is 'xxx"),
        ({"vocabulary": ["<unk>", "<eos>", "\ud800"]}, r"the vocabulary holds '\ud800', which no text in utf-8 does"),
        ({"vocabulary": ["<unk>", "<eos>", "x" * 1001]}, "a symbol of 1,001 characters, 1,000 are allowed"),
        ({"vocabulary": ["<unk>", "<eos>"], "model/vocabulary_size": 2}, "a vocabulary of 2 for a softmax of 3"),
    ],
)
def test_headers_of_language_models(seeds: dict[str, Seed], changes: dict[str, Any], message: str) -> None:
    assert message in sample(changed(seeds["chars model"], changes)).replace("x" * 500, "x ... x")


@pytest.mark.usefixtures("place")
def test_bytes_that_are_none(seeds: dict[str, Seed]) -> None:
    symbols = Archive.read(seeds["bytes model"].path.read_bytes()).header["vocabulary"]
    line = sample(changed(seeds["bytes model"], {"vocabulary": [*symbols[:-1], "\u4e00"]}))
    assert r"the vocabulary holds '\u4e00', which no text in latin-1 does" in line


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("size", [2, 3])
def test_an_adaptive_softmax_of_too_few(seeds: dict[str, Seed], size: int) -> None:
    """Its kernel wrote beyond the row of a vocabulary of three."""
    data = changed(seeds["words model"], {"vocabulary": ["<unk>", "<eos>", "a"][:size], "model/vocabulary_size": size})
    assert f"a vocabulary of {size} for a softmax of 4 or more" in sample(data)


@pytest.mark.usefixtures("place")
def test_an_adaptive_softmax_is_not_trained_on_too_few() -> None:
    Path("a.txt").write_text("aaa\naa\n" * 20)
    outcome = run(["train", "a.txt", "-o", "a.npz", "--softmax", "adaptive", "--epochs", "1", "--quiet"])
    assert outcome.code == 2
    assert "--softmax adaptive needs 4 symbols, and the text has 3; leave it out" in outcome.err


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("kind", ["int8", "int32", "float64"])
def test_weights_of_another_type(seeds: dict[str, Seed], kind: str) -> None:
    data = changed(seeds["chars model"], {}, embedding=lambda array: array.astype(kind))
    assert f"array 'embedding' is of {kind}, not float32" in sample(data)
    data = changed(seeds["chars state"], {}, carried=lambda array: array.astype(kind))
    assert f"array 'carried' is of {kind}, not float32" in resume(seeds["chars state"], data)


@pytest.mark.usefixtures("place")
def test_labels_that_no_line_can_hold(seeds: dict[str, Seed]) -> None:
    for labels, message in (
        (["a", "b", "c\td"], "a label holds a tab or a line break"),
        (["a", "b", "x" * 1001], "a label has more than 1,000 characters"),
        (["a", "b", "\udc80"], "surrogates not allowed"),
    ):
        for name in ("classify model", "tag model"):
            arguments = ["predict", FILE, str(seeds[name].text)]
            assert message in refusal(arguments, FILE, changed(seeds[name], {"labels": labels}))


@pytest.mark.usefixtures("place")
def test_halves_of_an_odd_size(seeds: dict[str, Seed]) -> None:
    arguments = ["predict", FILE, str(seeds["transduce model"].text)]
    data = changed(seeds["transduce model"], {"model/hidden_size": 9})
    assert "halves the hidden size, and 9 is odd" in refusal(arguments, FILE, data)


@pytest.mark.usefixtures("place")
def test_weights_come_with_all_their_sizes(seeds: dict[str, Seed]) -> None:
    """Those that no option of train says were forgotten."""
    seed = seeds["transduce model"]
    archive = Archive.read(seed.path.read_bytes())
    archive.header["model"]["source_embedding_size"] = 3
    embedding, weights = (archive.arrays[f"encoder/{name}"] for name in ("embedding", "layer0/w_x"))
    assert not isinstance(embedding, bytes)
    assert not isinstance(weights, bytes)
    archive.arrays["encoder/embedding"] = np.ascontiguousarray(embedding[:, :3])
    for name in ("layer0/w_x", "layer0/backward/w_x"):
        archive.arrays[f"encoder/{name}"] = np.ascontiguousarray(weights[:3])
    archive.declare()
    Path(FILE).write_bytes(archive.write())
    outcome = run(["train", str(seed.corpus), "-o", "new.npz", "--init-from", FILE, "--epochs", "1", "--quiet"])
    assert (outcome.code, outcome.err) == (0, "")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("chars", ["sample", "--seed", "1"]),
        ("chars", ["sample", "--beam", "2"]),
        ("chars", ["sample", "--prompt", "ab"]),
        ("tied", ["score", "TEXT", "--per", "corpus"]),
        ("chars", ["score", "TEXT", "--json"]),
        ("chars", ["gradients", "TEXT", "--steps", "2"]),
        ("labels", ["score", "TEXT", "--label", "all"]),
        ("classify", ["predict", "TEXT"]),
        ("tag", ["predict", "TEXT"]),
        ("transduce", ["predict", "TEXT"]),
    ],
)
def test_weights_that_overflow(seeds: dict[str, Seed], name: str, arguments: list[str]) -> None:
    """They are finite, but what they make is not; the columns were full of nan."""
    seed = seeds[f"{name} model"]
    archive = Archive.read(seed.path.read_bytes())
    archive.arrays = {path: np.full_like(array, 3e38) for path, array in archive.arrays.items()}
    given = [str(seed.text) if argument == "TEXT" else argument for argument in arguments]
    line = refusal([given[0], FILE, *given[1:]], FILE, archive.write())
    assert line.startswith(f"charlm: error: {FILE}: gives no finite number (NaN or infinity), its weights are damaged")


@pytest.mark.usefixtures("place")
def test_a_training_from_weights_that_overflow_ends_in_one_error(seeds: dict[str, Seed]) -> None:
    seed = seeds["chars model"]
    archive = Archive.read(seed.path.read_bytes())
    archive.arrays = {path: np.full_like(array, 3e38) for path, array in archive.arrays.items()}
    Path(FILE).write_bytes(archive.write())
    outcome = run(["train", str(seed.corpus), "-o", "new.npz", "--init-from", FILE, "--epochs", "1", "--quiet"])
    assert outcome.code == 1
    assert fault_of(outcome, FILE) is None
    assert "no model was written" in outcome.err
    assert not Path("new.npz").exists()


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training/batch_size": 2**40}, "its training options are out of range (batch_size)"),
        ({"training/bptt": 2**62}, "its training options are out of range (bptt)"),
        ({"training/bptt": None}, "its training options are malformed (bptt)"),
        ({"training/lr": -1.0}, "its training options are out of range (lr)"),
        ({"training/dropout": 7.0}, "its training options are out of range (dropout)"),
        ({"training/optimizer": "best"}, "its training options are out of range (optimizer)"),
        ({"training/clip_mode": ""}, "its training options are out of range (clip_mode)"),
        ({"training/seed": -1}, "its training options are out of range (seed)"),
        ({"progress/step": 2**62}, "its numbers are out of range (step)"),
        ({"progress/tokens": -1}, "its numbers are out of range (tokens)"),
        ({"progress/halvings": -5000}, "its numbers are out of range (halvings)"),
        ({"progress/rollback_factor": 2.0}, "its numbers are out of range (rollback_factor)"),
        ({"progress/log/steps": -1}, "its numbers are out of range (steps)"),
        ({"progress/history": [{"train_nats": "low"}]}, "its numbers are malformed (history)"),
        ({"safe/seconds": -1.0}, "its numbers are out of range (seconds)"),
        ({"text/valid_frac": "much"}, "its valid_frac is 'much'"),
        ({"text/valid_frac": 2}, "its valid_frac is 2"),
        ({"text/min_count": [1]}, "its min_count is [1]"),
    ],
)
def test_headers_of_training_states(seeds: dict[str, Seed], changes: dict[str, Any], message: str) -> None:
    assert message in resume(seeds["chars state"], changed(seeds["chars state"], changes))


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "option",
    [["--bptt", str(10**30)], ["--epochs", str(2**60)], ["--warmup", str(10**400)], ["--time", "9" * 400 + "h"]],
)
def test_no_training_begins_whose_state_would_be_refused(seeds: dict[str, Seed], option: list[str]) -> None:
    outcome = run(["train", str(seeds["chars model"].corpus), "-o", "new.npz", "--quiet", *option])
    assert outcome.code == 2
    assert f"{option[0]} " in outcome.err
    assert fault_of(outcome, FILE) is None
    assert not list(Path().iterdir())


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("value", [[], "x", {"token_column": "1"}, {"token_column": -1}, {"tag_column": 10**9}])
def test_what_a_tagger_says_of_columns(seeds: dict[str, Seed], value: object) -> None:
    seed = seeds["tag model"]
    data = changed(seed, {"text": value})
    refusal(["predict", FILE, str(seed.text)], FILE, data)
    refusal(["train", str(seed.corpus), "-o", "new.npz", "--init-from", FILE, "--quiet"], FILE, data)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("clip", "history"),
    [
        (2**62, [{"step": 2**62, "clipped": 1.0}]), (True, [{"step": True, "clipped": -1.0}]), (1, [{"step": -5}]),
        (1e308, [{"step": 5, "clipped": 1e308}, {"step": 3, "clipped": 0.5}]), (1.0, {"a": 1}), (1.0, [[1]]),
    ],
)  # fmt: skip
def test_what_a_model_says_of_clipping_is_told_or_not(seeds: dict[str, Seed], clip: object, history: object) -> None:
    seed = seeds["chars model"]
    Path(FILE).write_bytes(changed(seed, {"training/clip": clip, "history": history, "training/clip_mode": "\x1b[31m"}))
    for options in ([], ["--json"]):
        outcome = run(["gradients", FILE, str(seed.text), "--steps", "2", "--positions", "4", *options])
        assert fault_of(outcome, FILE) is None, outcome.err
        assert outcome.code == 0
        assert "\x1b" not in outcome.out


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"characters": 10**400}, "its counts are not numbers"),
        ({"unknowns": 5}, "its ids are not those that it counted"),
    ],
)
def test_counts_of_token_files(seeds: dict[str, Seed], changes: dict[str, int], message: str) -> None:
    magic, line, rest = seeds["tokens"].path.read_bytes().split(b"\n", 2)
    header = json.loads(line)
    ids = rest[-header["length"] :]
    header["counts"] |= changes
    head = magic + b"\n" + json.dumps(header).encode() + b"\n"
    data = head + b"\0" * (-len(head) % 64) + ids
    arguments = ["train", FILE, "-o", "new.npz", "--valid-frac", "0.2", "--epochs", "1"]
    assert message in refusal(arguments, FILE, data)


# ---- planted faults ----


@pytest.mark.usefixtures("place")
def test_the_harness_sees_numbers_that_are_none(seeds: dict[str, Seed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "require_finite", lambda nats: None)
    seed = seeds["chars model"]
    Path(FILE).write_bytes(
        changed(seed, {}, output__b=lambda array: np.full_like(array, 3e38), output__w=lambda a: -a * 9e37)
    )
    found = fault_of(run(["score", FILE, str(seed.text)]), FILE)
    assert found is not None
    assert "number" in found


@pytest.mark.usefixtures("place")
def test_the_harness_sees_an_unforeseen_exception(seeds: dict[str, Seed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configs, "LARGEST_SIZE", None)
    seed = seeds["chars model"]
    Path(FILE).write_bytes(seed.path.read_bytes())
    assert fault_of(run(["score", FILE, str(seed.text)]), FILE) == "an internal error"


def test_consistent_models_load(seeds: dict[str, Seed], place: Place) -> None:
    """Most of them do: what is to be tried on the kernels is not refused before."""
    codes = []
    for number in range(8):
        data, _ = consistent(seeds["chars model"].path.read_bytes(), random.Random(number))
        (place.folder / FILE).write_bytes(data)
        codes.append(run(["tokenize", str(seeds["chars model"].text), "--vocab", FILE]).code)
    assert codes.count(0) > 4
