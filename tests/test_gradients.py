"""What ``charlm gradients`` measures: which tokens, whose past, what mean, what of clipping."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from charlm.errors import InputError, UsageError
from charlm.models.gradient_flow import gradient_norms
from charlm.text import token_file
from charlm.text.corpus import load
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID, UNK_ID
from charlm.workflows import gradients
from charlm.workflows.gradients import Clipping, Curve, GradientsRequest, clipping, run
from charlm.workflows.model_files import load_model
from charlm.workflows.model_tokens import read_tokens
from charlm.workflows.tokenize import TextOptions
from tests.stub_model import write_tiny_model

LINES = "abc\nbad cab\nabcd abcd\n\nca\n"
WORDS = TextOptions(level="word", min_count=1)


@pytest.fixture
def model(tmp_path: Path) -> str:
    write_tiny_model(tmp_path / "m.npz", "abcd ", cell="lstm")
    return str(tmp_path / "m.npz")


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "t.txt").write_text(LINES)
    return str(tmp_path / "t.txt")


def test_the_mean_is_over_the_tokens_each_after_its_own_past(model: str, text: str) -> None:
    steps = 3
    curve = run(GradientsRequest([model, text], steps=steps)).curves[0]
    loaded = load_model(model, 1)
    start, expected, layers = loaded.vocabulary.start_id, [], []
    for line in LINES.split("\n")[:-1]:
        ids = [*loaded.vocabulary.ids(list(line)), EOS_ID]
        for t in range(steps, len(ids)):
            inputs = np.array([[start, *ids[:t]]], np.int32).T
            state = loaded.model.zero_state(1)
            norms = gradient_norms(loaded.model, inputs, np.array([ids[t]], np.int32), state, steps)[:, 0]
            layers.append(norms)
            expected.append(np.sqrt(np.square(norms).sum(axis=1)))
    assert curve.positions == len(expected) == 1 + 5 + 7
    np.testing.assert_allclose(curve.norms, np.mean(expected, axis=0), rtol=1e-13)
    np.testing.assert_allclose(curve.layers, np.mean(layers, axis=0).T, rtol=1e-13)


def test_a_label_is_what_a_sequence_begins_with(tmp_path: Path) -> None:
    path, text = str(tmp_path / "m.npz"), tmp_path / "t.txt"
    write_tiny_model(path, "abcd ", labels={"x": 1, "y": 3})
    text.write_text("abc\n")
    loaded = load_model(path, 1)
    a = loaded.vocabulary.ids(["a"])[0]
    for number, label in enumerate("xy"):
        found = run(GradientsRequest([path, str(text)], label=label, steps=1, positions=99)).curves[0]
        assert found.positions == 3
        short = tmp_path / "s.txt"
        short.write_text("a\n")
        inputs = np.array([[loaded.vocabulary.start_id + 1 + number], [a]], np.int32)
        expected = gradient_norms(loaded.model, inputs, np.array([EOS_ID], np.int32), loaded.model.zero_state(1), 1)
        found = run(GradientsRequest([path, str(short)], label=label, steps=1)).curves[0]
        np.testing.assert_allclose(found.layers.T, expected[:, 0], rtol=1e-13)
    with pytest.raises(UsageError, match="give --label"):
        run(GradientsRequest([path, str(text)]))
    with pytest.raises(InputError, match="z"):
        run(GradientsRequest([path, str(text)], label="z"))


def test_a_long_past_is_cut_where_it_matters_no_more(model: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(GradientsRequest([model, text], steps=1)).curves[0]
    monkeypatch.setattr(gradients, "WARMUP", 4)
    cut = run(GradientsRequest([model, text], steps=1)).curves[0]
    assert (cut.norms != whole.norms).any()
    np.testing.assert_allclose(cut.norms, whole.norms, rtol=0.05)


@pytest.mark.parametrize(("rows", "threads"), [(1, 1), (3, 2), (64, 2)])
def test_neither_threads_nor_rows_change_a_bit(
    rows: int, threads: int, model: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = GradientsRequest([model, text], steps=2, positions=7, seed=5)
    expected = run(replace(request, threads=1)).to_json()
    monkeypatch.setattr(gradients, "ROWS", rows)
    assert run(replace(request, threads=threads)).to_json() == expected
    monkeypatch.setattr(gradients, "STATE_NUMBERS", 1)
    assert run(replace(request, threads=threads)).to_json() == expected


def test_the_seed_draws_the_tokens(model: str, text: str) -> None:
    request = GradientsRequest([model, text], steps=2, positions=5)
    results = [run(replace(request, seed=seed)).curves[0] for seed in (1, 1, 2)]
    assert [curve.positions for curve in results] == [5, 5, 5]
    assert (results[0].norms == results[1].norms).all()
    assert (results[0].norms != results[2].norms).all()


def test_fresh_cells_are_those_that_training_begins_with(text: str) -> None:
    request = GradientsRequest([text], cells=("rnn", "gru", "rnn"), hidden_size=9, num_layers=2, steps=2, seed=3)
    result = run(request)
    assert [curve.name for curve in result.curves] == ["rnn", "gru"]
    assert [curve.config.cell for curve in result.curves] == ["rnn", "gru"]
    for curve in result.curves:
        assert (curve.config.hidden_size, curve.config.embedding_size, curve.config.num_layers) == (9, 9, 2)
        assert curve.layers.shape == (2, 3)
        assert curve.layers[0, 0] == 0 < curve.layers[1, 0]
        assert curve.clipping is curve.model is None
        assert curve.parameters > 0
    assert (run(request).curves[0].norms == result.curves[0].norms).all()
    assert (run(replace(request, seed=4)).curves[0].norms != result.curves[0].norms).all()


def test_an_activation_goes_to_the_cells_that_have_it(text: str) -> None:
    result = run(GradientsRequest([text], cells=("rnn", "lstm"), hidden_size=9, activation="relu", steps=1))
    assert [(curve.name, curve.config.activation) for curve in result.curves] == [
        ("rnn (relu)", "relu"),
        ("lstm", "tanh"),
    ]


def test_how_far_back_by_default(tmp_path: Path, text: str) -> None:
    # 4, 8, 10, 3 tokens with their ends; the blank line is no sequence
    assert run(GradientsRequest([text], cells=("rnn",), hidden_size=9, positions=5)).steps == 6
    assert run(GradientsRequest([text], cells=("rnn",), hidden_size=9, positions=1)).steps == 9
    long = tmp_path / "long.txt"
    long.write_text("abcd" * 50)
    assert run(GradientsRequest([str(long)], cells=("rnn",), hidden_size=9, positions=9)).steps == gradients.STEPS
    long.write_text("a b\nb a\n")
    with pytest.raises(InputError, match="too few tokens have another before them"):
        run(GradientsRequest([str(long)], cells=("rnn",), hidden_size=9, text=WORDS))
    assert (
        run(GradientsRequest([str(long)], cells=("rnn",), hidden_size=9, text=WORDS, steps=2)).curves[0].positions == 2
    )


def test_several_models(tmp_path: Path, text: str) -> None:
    (tmp_path / "other").mkdir()
    paths = [str(tmp_path / "one.npz"), str(tmp_path / "other" / "two.npz"), str(tmp_path / "other" / "one.npz")]
    for path in paths:
        write_tiny_model(path, "abcd ", cell="gru")
    assert [curve.name for curve in run(GradientsRequest([*paths[:2], text], steps=1)).curves] == ["one", "two"]
    assert [curve.name for curve in run(GradientsRequest([*paths, text], steps=1)).curves] == paths
    with pytest.raises(UsageError, match="several models each read the text"):
        run(GradientsRequest([*paths, "-"]))


def test_progress_counts_all_tokens(model: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "ROWS", 4)
    seen: list[int] = []
    curve = run(GradientsRequest([model, text], steps=2), seen.append).curves[0]
    assert sum(seen) == curve.positions
    assert len(seen) == -(-curve.positions // 4)


def test_the_picture(tmp_path: Path, text: str) -> None:
    picture = tmp_path / "a.SVG"
    run(GradientsRequest([text], cells=("rnn", "gru"), steps=3, picture=str(picture)))
    texts = {element.text for element in ElementTree.parse(picture).getroot().iter()}
    assert {"rnn", "gru", "How far back the loss of a step reaches: t.txt"} <= texts
    with pytest.raises(UsageError, match=r"a\.png: a picture is written as \.svg"):
        run(GradientsRequest([text], cells=("rnn",), picture=str(tmp_path / "a.png")))
    named = tmp_path / "text.svg"
    named.write_text(LINES)
    with pytest.raises(UsageError, match="would be written over what is read"):
        run(GradientsRequest([str(named)], cells=("rnn",), picture=str(named)))
    assert named.read_text() == LINES


def test_the_factor_of_a_step(text: str) -> None:
    curve = run(GradientsRequest([text], cells=("rnn",), steps=3)).curves[0]
    norms = curve.norms
    assert curve.factor_per_step == pytest.approx((norms[3] / norms[1]) ** 0.5)
    for values, expected in (
        ([1.0, 0.5], None),
        ([1.0, 0.0, 0.0], None),
        ([1.0, 0.5, 0.0], 0.0),
        ([9.0, 8.0, 4.0], 0.5),
    ):
        assert replace(curve, norms=np.array(values)).factor_per_step == expected


def test_json_holds_no_number_that_it_cannot(text: str) -> None:
    result = run(GradientsRequest([text], cells=("rnn",), steps=1))
    odd = replace(result.curves[0], norms=np.array([np.inf, np.nan]), layers=np.array([[1.0, np.inf]]))
    described = replace(result, curves=[odd]).to_json()
    assert json.loads(json.dumps(described, allow_nan=False))["curves"][0]["norms"] == [None, None]


# ---- clipping ----


def header(clip: Any, *records: Any, **more: Any) -> dict[str, Any]:
    return {"training": {"clip": clip, "clip_mode": "value"}, "history": list(records), **more}


def test_clipping_is_the_share_of_steps() -> None:
    found = clipping(header(2, {"step": 10, "clipped": 0.5}, {"step": 40, "clipped": 0.1}))
    assert found == Clipping(2.0, "value", 40, pytest.approx((5 + 3) / 40))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"training": {}}, None),
        ({"training": []}, None),
        (header("1"), None),
        (header(1.5), Clipping(1.5, "value", 0, None)),
        (header(1, {"step": 10, "clipped": 0.5}, {"step": 20}), Clipping(1.0, "value", 20, None)),
        (header(1, {"step": 10}, {"step": 20, "clipped": 0.5}), Clipping(1.0, "value", 20, None)),
        (header(1, 3, {"step": "x", "clipped": 1}), Clipping(1.0, "value", 0, None)),
        (header(1, {"step": 4, "clipped": 1}, history=None), Clipping(1.0, "value", 0, None)),
    ],
)
def test_a_header_that_does_not_tell(given: dict[str, Any], expected: Clipping | None) -> None:
    assert clipping(given) == expected


# ---- a text as a model's tokens ----


def spelt(path: str, model_path: str, on_unknown: str = "unk") -> str:
    loaded = load_model(model_path, 1)
    ids = read_tokens(path, loaded, on_unknown)
    return "".join({UNK_ID: "?", EOS_ID: "$"}.get(i, loaded.vocabulary.symbol(i)) for i in ids.tolist())


@pytest.mark.parametrize(
    ("sequence", "content", "expected"),
    [
        ("line", "ab\nc?\n\nd", "ab$c?$$d$"),
        ("paragraph", "ab\nc\n \n\nd\n", "ab\nc$d$"),
        ("file", "ab\n\nc\n", "ab\n\nc\n$"),
        ("file", "ab\nc", "ab\nc$"),
    ],
)
def test_sequences_are_the_models(tmp_path: Path, sequence: str, content: str, expected: str) -> None:
    path, text = tmp_path / "m.npz", tmp_path / "t.txt"
    write_tiny_model(path, "abcd\n", Tokenizer(sequence=sequence))
    text.write_text(content)
    assert spelt(str(text), str(path)) == expected
    if sequence != "line":  # as training cuts it
        corpus, _ = load([str(text)], Tokenizer(sequence=sequence), vocabulary=load_model(str(path), 1).vocabulary)
        assert corpus.tokens.tolist() == read_tokens(str(text), load_model(str(path), 1), "unk").tolist()


@pytest.mark.parametrize("sequence", ["line", "paragraph", "file"])
def test_unknown_tokens(tmp_path: Path, sequence: str) -> None:
    path, text = tmp_path / "m.npz", tmp_path / "t.txt"
    write_tiny_model(path, "abcd\n", Tokenizer(sequence=sequence))
    text.write_text("ab\nxc?\n")
    end = "\n$" if sequence == "file" else "$"
    line_end = "$" if sequence == "line" else "\n"
    assert spelt(str(text), str(path)) == f"ab{line_end}?c?{end}"
    assert spelt(str(text), str(path), "skip") == f"ab{line_end}c{end}"
    with pytest.raises(InputError, match=r"t\.txt: 'x' \(U\+0078, .*\) at line 2, column 1 is not in the model's"):
        spelt(str(text), str(path), "error")


def test_blocks_of_a_long_file_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, text = tmp_path / "m.npz", tmp_path / "t.txt"
    write_tiny_model(path, "abcd\n", Tokenizer(sequence="file"))
    text.write_text("ab\nc\n" * 20 + "dxd")
    monkeypatch.setattr("charlm.text.readers.BLOCK_BYTES", 7)
    assert spelt(str(text), str(path)) == "ab\nc\n" * 20 + "d?d$"
    with pytest.raises(InputError, match="line 41, column 2"):
        spelt(str(text), str(path), "error")


def test_a_token_file(tmp_path: Path, model: str, text: str) -> None:
    loaded = load_model(model, 1)
    for content in ("abc\nd d\n", "abc\nd?d\n"):
        Path(text).write_text(content)
        corpus, _ = load([text], loaded.tokenizer, vocabulary=loaded.vocabulary)
        token_file.write(tmp_path / "t.tokens", corpus)
        stored = str(tmp_path / "t.tokens")
        assert spelt(stored, model) == spelt(text, model)
        assert spelt(stored, model, "skip") == spelt(text, model, "skip")
    with pytest.raises(InputError, match="holds 1 token not in the model's vocabulary"):
        spelt(stored, model, "error")
    corpus, _ = load([text], loaded.tokenizer)
    token_file.write(tmp_path / "t.tokens", corpus)
    with pytest.raises(InputError, match="made with another vocabulary"):
        spelt(stored, model)


def test_nothing_to_read(tmp_path: Path, model: str) -> None:
    empty = tmp_path / "e.txt"
    empty.write_text("")
    with pytest.raises(InputError, match=r"e\.txt: empty"):
        run(GradientsRequest([model, str(empty)]))


def test_a_curve_is_a_record(text: str) -> None:
    curve: Curve = run(GradientsRequest([text], cells=("lstm-peephole",), steps=1)).curves[0]
    assert curve.norms.shape == (2,)
    assert (curve.norms > 0).all()
