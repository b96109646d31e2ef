"""``charlm info``: what it says of models and states, whole, old and hostile ones."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from charlm import checkpoint
from charlm.cli.info import _Report
from charlm.cli.main import main
from charlm.evaluation.table import display_width
from charlm.workflows.info import info, parameters
from tests.test_imports import modules_after

ROOT = Path(__file__).parents[1]
TASKS = {
    "lm": ["corpora/dinosaurs.txt"],
    "classify": ["corpora/towns.tsv", "--task", "classify", "--bidirectional"],
    "tag": ["corpora/visits.conll", "--task", "tag"],
    "transduce": ["corpora/sounds.tsv", "--task", "transduce", "--attention"],
}
SMALL = ["--hidden-size", "8", "--batch-size", "64", "--epochs", "2", "--seed", "5", "--quiet"]
WEIGHTS = {
    "output/w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "embedding": np.ones((3, 2), np.float32),
    "layer10/w_h": np.ones((2, 2), np.float32),
    "layer2/b": np.ones(2, np.float32),
    "layer2/w_x": np.ones((2, 2), np.float32),
    "layer2/backward/w_x": np.ones((2, 2), np.float32),
}
HEADER: dict[str, Any] = {
    "vocabulary": ["<unk>", "<eos>", "a"],
    "tokenizer": {"level": "char", "sequence": "line", "normalize": "nfc", "lowercase": False},
    "model": {"cell": "gru", "num_layers": 1, "hidden_size": 2},
    "training": {"lr": 0.01, "seed": 0, "epochs": 9},
    "command": "charlm train a.txt -o m.npz",
    "history": [],
}


def validation(number: int, valid_nats: float | None = 2.0, error: float | None = None) -> dict[str, Any]:
    return {
        "step": 10 * number, "epoch": number / 2, "tokens": 100 * number, "seconds": 0.5, "train_nats": 3.0 / number,
        "valid_nats": valid_nats, "valid_error": error, "clipped": 0.0,
    }  # fmt: skip


def write(path: Path, *, kind: str = "model", **changes: Any) -> Path:
    header = HEADER | changes
    arrays = WEIGHTS if kind == "model" else {f"parameters/{name}": array for name, array in WEIGHTS.items()}
    arrays = arrays if kind == "model" else arrays | {"optimiser/mean": np.ones(9, np.float32)}
    checkpoint.save(path, {name: value for name, value in header.items() if value is not ...}, arrays, kind=kind)
    return path


def run(*arguments: object, columns: int = 80) -> Result:
    return CliRunner().invoke(main, ["info", *map(str, arguments)], env={"COLUMNS": str(columns)})


def report(path: Path, columns: int = 80) -> str:
    result = run(path, columns=columns)
    assert (result.exit_code, result.stderr) == (0, ""), result.stderr
    assert result.stdout.isprintable() or set(filter(lambda c: not c.isprintable(), result.stdout)) == {"\n"}
    return result.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model of a task, and the state beside it."""
    folder = tmp_path_factory.mktemp("trained")

    def train(task: str) -> Path:
        path = folder / f"{task}.npz"
        if not path.exists():
            corpus, *options = TASKS[task]
            result = CliRunner().invoke(main, ["train", str(ROOT / corpus), *options, *SMALL, "-o", str(path)])
            assert result.exit_code == 0, result.stderr
        return path

    return train


# ---- of real models ----


@pytest.mark.parametrize("task", TASKS)
def test_a_model_tells_what_it_is_and_how_it_was_made(trained: Callable[[str], Path], task: str) -> None:
    path = trained(task)
    found = json.loads(run(path, "--json").stdout)
    corpus = ROOT / TASKS[task][0]
    assert (found["task"], found["kind"], found["training"]["seed"]) == (task, "model", 5)
    assert found["corpus"]["files"] == [
        {"name": str(corpus), "size_bytes": corpus.stat().st_size, "sha256": sha256sum(corpus)}
    ]
    session = found["sessions"][0]
    assert session["host"]["threads"] >= 1
    assert session["host"]["numpy"] == np.__version__
    assert session["host"]["vector_bits"] in (128, 256, 512)
    loaded = checkpoint.load(path)
    assert found["parameters"]["count"] == sum(array.size for array in loaded.arrays.values())
    tensors = [tensor for layer in found["parameters"]["layers"] for tensor in layer["tensors"]]
    assert sorted(tensor["shape"] for tensor in tensors) == sorted(list(a.shape) for a in loaded.arrays.values())
    text = report(path)
    for part in (sha256sum(corpus), found["parameters"]["sha256"], "seed 5", "numpy", str(corpus), "best "):
        assert part in text
    for line in text.splitlines():
        assert display_width(line) <= 80 or str(path.parent) in line or str(corpus) in line, line
    if task in ("classify", "tag"):
        assert found["labels"]["first"][0] in text
    if task == "transduce":
        assert [side["side"] for side in found["texts"]] == ["source", "target"]


def test_a_state_has_the_weights_and_says_where_the_training_stands(trained: Callable[[str], Path]) -> None:
    path = trained("lm")
    model, state = info(str(path)), info(str(path.with_suffix(".resume.npz")))
    assert state["kind"] == "training-state"
    assert state["parameters"]["sha256"] == model["parameters"]["sha256"]
    assert (state["standing"]["finished"], state["standing"]["epoch"], model["standing"]) == (True, 2, None)
    assert "2 of 2 epochs done, finished" in report(path.with_suffix(".resume.npz"))


def sha256sum(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_it_does_without_the_engine(trained: Callable[[str], Path]) -> None:
    path = str(trained("lm"))
    loaded = modules_after(f"from charlm.cli.main import main\nmain(['info', {path!r}])")
    assert "charlm.workflows.info" in loaded
    assert not {name for name in loaded if name.split(".")[0] in ("numba", "llvmlite") or ".engine" in name}


# ---- of the weights ----


def test_layers_stand_in_the_order_in_which_a_token_meets_them(tmp_path: Path) -> None:
    found = info(str(write(tmp_path / "m.npz")))["parameters"]
    assert [layer["name"] for layer in found["layers"]] == [
        "embedding", "layer2", "layer2/backward", "layer10", "output",
    ]  # fmt: skip
    assert [tensor["name"] for tensor in found["layers"][1]["tensors"]] == ["w_x", "b"]
    assert sum(layer["count"] for layer in found["layers"]) == found["count"] == 26
    assert found["size_bytes"] == 4 * 26


def test_the_digest_is_of_the_bits(tmp_path: Path) -> None:
    digest = parameters(dict(WEIGHTS), "")["sha256"]
    assert parameters(dict(reversed(WEIGHTS.items())), "")["sha256"] == digest
    assert info(str(write(tmp_path / "m.resume.npz", kind="training-state")))["parameters"]["sha256"] == digest
    assert info(str(write(tmp_path / "m.npz", history=[validation(1)], command="x")))["parameters"]["sha256"] == digest
    seen = {digest}
    for name, array in WEIGHTS.items():
        changed = array.copy()
        changed.reshape(-1)[-1] = np.nextafter(changed.reshape(-1)[-1], np.float32(9))
        seen.add(parameters(WEIGHTS | {name: changed}, "")["sha256"])
        seen.add(parameters(WEIGHTS | {name: array.reshape(-1)[None]}, "")["sha256"])
    assert len(seen) == 1 + 2 * len(WEIGHTS)


# ---- the history ----


@pytest.mark.parametrize(("count", "panels"), [(0, 0), (1, 0), (2, 2), (200, 2)])
@pytest.mark.parametrize("columns", [60, 80, 250])
def test_the_history_is_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, panels: int, columns: int
) -> None:
    path = write(tmp_path / "m.npz", history=[validation(i + 1, 2 / (i + 1)) for i in range(count)])
    monkeypatch.chdir(tmp_path)
    text = report(Path(path.name), columns)
    assert text.count(" loss, nats/char: ") == panels
    assert ("█" in text) == (panels > 0)
    assert max(map(len, text.splitlines())) <= max(columns, 77 if columns < 80 else 100)
    assert ("not validated yet" in text) == (count == 0)


def test_a_history_without_validation_text_is_one_curve(tmp_path: Path) -> None:
    text = report(write(tmp_path / "m.npz", history=[validation(i, None) for i in (1, 2, 3)]))
    assert text.count(" loss, nats/char: ") == 1
    assert "best         training 1.000 nats/char (1.443 bits), after 1.5 epochs, 30 steps" in text


def test_the_best_is_the_one_that_was_kept(tmp_path: Path) -> None:
    history = [validation(1, 0.5, 0.3), validation(2, 0.9, 0.1), validation(3, 0.8, 0.1), validation(4, 0.8, 0.1)]
    best = info(str(write(tmp_path / "m.npz", history=history)))["best"]
    assert (best["step"], best["error"], best["nats_per_unit"]) == (30, 0.1, 0.8)
    assert best["bits_per_unit"] == pytest.approx(0.8 / np.log(2))
    assert best["perplexity_per_unit"] == pytest.approx(np.exp(0.8))


def test_where_blocks_cannot_be_shown_there_are_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.npz", history=[validation(1), validation(2, 1.0)], vocabulary=["<unk>", "<eos>", "é"])
    runner = CliRunner(charset="ascii")
    text = runner.invoke(main, ["info", str(path)]).stdout_bytes.decode()
    assert "####" in text
    assert "<eos> é" in text  # results are UTF-8 wherever they go but to a terminal


# ---- a state ----


def test_an_unfinished_training_says_how_to_go_on(tmp_path: Path) -> None:
    progress = {"step": 7, "epoch": 1, "chunk": 2, "tokens": 70, "seconds": 1.5, "lr": 0.1, "rollbacks": 0}
    corpus = {"names": ["a b.txt"], "sha256": "0" * 64, "valid_sha256": None}
    path = write(tmp_path / "m.resume.npz", kind="training-state", progress=progress, corpus=corpus, finished=False)
    text = report(path, columns=1000)
    assert "standing     step 7, 1 of 9 epochs done, not finished" in text
    assert f"charlm train 'a b.txt' -o {tmp_path}/m.npz --resume" in re.sub(r"\s+", " ", text)
    corpus |= {"names": ["standard input"], "valid_files": [{"name": "v w.txt"}]}
    path = write(tmp_path / "m.resume", kind="training-state", progress=progress, corpus=corpus, finished=False)
    text = report(path, columns=1000)
    assert f"charlm train - --valid 'v w.txt' -o {tmp_path}/m --resume" in re.sub(r"\s+", " ", text)


def test_sessions_are_listed(tmp_path: Path) -> None:
    sessions = [
        {"from_step": 100 * i, "command": f"charlm train {i}", "charlm": "1.0", "host": {"threads": i}}
        for i in range(6)
    ]
    text = report(write(tmp_path / "m.npz", sessions=sessions))
    assert "sessions     6, here the last 4" in text
    assert "command      charlm train 5  (from step 500)" in text
    assert "charlm train 1" not in text
    assert "on other machines" in text


# ---- old, damaged, hostile ----


def test_what_an_older_file_does_not_say_is_not_recorded(tmp_path: Path) -> None:
    path = write(tmp_path / "m.npz", corpus={"names": ["old.txt"], "sha256": "ab" * 32, "valid_sha256": "cd" * 32})
    found = info(str(path))
    assert (found["corpus"]["files"], found["corpus"]["names"]) == (None, ["old.txt"])
    assert found["sessions"] == [
        {"from_step": None, "command": "charlm train a.txt -o m.npz", "charlm": None, "host": None}
    ]
    text = report(path)
    for part in ("old.txt", "ab" * 32, "cd" * 32, "charlm train a.txt -o m.npz", "host not recorded"):
        assert part in text


ODD = [
    None,
    ...,
    5,
    -1.5,
    True,
    "x\x1b[31m\u202ey\udc80\n",
    [],
    {},
    [[]],
    [{}],
    ["\x1b", 5, None],
    {"a": {"b": 1}},
    10**30,
]
KEYS = [
    "vocabulary", "tokenizer", "target_vocabulary", "target_tokenizer", "characters", "labels", "model", "training",
    "command", "history", "sessions", "corpus", "text", "progress", "finished",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["model", "training-state"])
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_values_are_shown_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: Any, kind: str) -> None:
    """Each key at the top, and each within the objects and records that charlm writes."""
    whole = HEADER | {
        "history": [validation(1), validation(2)], "corpus": {"names": ["a"], "sha256": "0", "files": []},
        "sessions": [{"from_step": 0, "command": "a", "charlm": "b", "host": {"threads": 2, "features": ["avx"]}}],
        "progress": {"step": 1, "epoch": 1}, "text": {"valid_frac": 0.1},
    }  # fmt: skip
    changes: list[dict[str, Any]] = [{key: odd} for key in KEYS]
    if odd is not ...:
        for key in ("tokenizer", "model", "training", "corpus", "text", "progress"):
            changes += [{key: whole[key] | {name: odd}} for name in [*whole[key], "files", "valid_files"]]
        for key in ("history", "sessions"):
            changes += [{key: [*whole[key], whole[key][0] | {name: odd}]} for name in whole[key][0]]
        changes += [
            {"sessions": [whole["sessions"][0] | {"host": {name: odd}}]} for name in ("threads", "features", "cpu")
        ]
    path = write(tmp_path / "m.npz", kind=kind)
    loaded = checkpoint.load(path, kind=kind)
    for change in changes:
        header = {name: value for name, value in (loaded.header | whole | change).items() if value is not ...}
        monkeypatch.setattr(checkpoint, "load", lambda *_, **__: checkpoint.Checkpoint(header, loaded.arrays))  # noqa: B023
        found = info(str(path))
        json.dumps(found, allow_nan=False)
        assert all(line.isprintable() for line in _Report(found, 80).lines())


def test_numbers_beyond_all_bounds_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "m.npz", history=[validation(1) | {"valid_nats": 12345.5}])
    data = path.read_bytes()
    assert data.count(b"12345.5") == 1
    # zipfile compares a checksum, so the header is written anew: json.loads makes infinity of it
    header = checkpoint.load(path).header
    header["history"][0]["valid_nats"] = 1e300
    checkpoint.save(path, header, WEIGHTS)
    assert info(str(path))["history"][0]["valid_nats"] is None


def test_a_name_with_escapes(tmp_path: Path) -> None:
    path = write(tmp_path / "m\x1b[31m\u202e.npz")
    assert "m\\x1b[31m\\u202e.npz:" in report(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"text", "not a charlm model but a text"), (None, "no such file")],
)
def test_what_is_no_model(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "m.npz"
    if content is not None:
        path.write_bytes(content)
    result = run(path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_damaged_weight_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "m.npz")
    data = bytearray(path.read_bytes())
    place = data.index(WEIGHTS["output/w"].tobytes())
    data[place + 5] ^= 1
    path.write_bytes(data)
    assert "damaged" in run(path).stderr


def test_another_kind_of_file(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "m.npz", HEADER, WEIGHTS, kind="other")
    assert "not a model or a training state" in run(tmp_path / "m.npz").stderr


def test_the_size_is_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "m.npz")
    assert info(str(path))["size_bytes"] == os.path.getsize(path)
