"""Scores given a label, or under every one: known probabilities, a trained model, and the command."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charlm.cli.main import main
from charlm.errors import InputError, UsageError
from charlm.text.labels import Labels
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID
from charlm.workflows import scoring_batches
from charlm.workflows.label_side import LabelSide
from charlm.workflows.model_files import LoadedModel
from charlm.workflows.score import UNLEARNT, Scorer
from charlm.workflows.score_results import LabelScores, Summary
from tests.conditioned_model import write_conditioned_model
from tests.stub_model import StubModel, vocabulary_of, write_tiny_model
from tests.test_score import sentences_of, tokens_of, written

COUNTS = {"left": 5, "right": 3, "never": 0, "50 %": 2}
PRIOR = [0.5, 0.3, 0.0, 0.2]
SYMBOLS = "ab "
V, K = len(SYMBOLS) + 2, len(COUNTS)
ROOT = Path(__file__).parents[1]


def stub(counts: dict[str, int] | None = None, header: dict[str, Any] | None = None) -> LoadedModel:
    """A model whose next token depends on the last two, and at the start on the label."""
    counts = COUNTS if counts is None else counts
    size = V + 1 + len(counts)
    model: Any = StubModel(np.random.default_rng(3).dirichlet(np.ones(V), (size, size)))
    side = LabelSide(Labels(tuple(counts)), tuple(counts.values()))
    return LoadedModel(model, vocabulary_of(SYMBOLS), Tokenizer(), header or {}, "stub", side)


def token_nats(loaded: LoadedModel, label: int, text: str) -> list[float]:
    """The log probability of each token and of EOS given the label, by the definition."""
    model: Any = loaded.model
    before = last = V + 1 + label
    nats = []
    for token in [*loaded.vocabulary.ids(text).tolist(), EOS_ID]:
        nats.append(math.log(model.table[before, last, token]))
        before, last = last, token
    return nats


def by_label(scorer: Scorer, path: str) -> LabelScores:
    """The columns of all windows, one after another."""
    windows = [window.labels for window in scorer.sentences(path)]
    assert all(window is not None for window in windows)
    columns: Any = [(window.log_probs_nats, window.posteriors) for window in windows if window is not None]
    return LabelScores(*(np.concatenate(part) for part in zip(*columns, strict=True)))


def text_nats(nats: Any, prior: Any) -> float:
    """log sum over labels of P(label) P(text | label)."""
    return math.log(sum(p * math.exp(n) for p, n in zip(prior, nats, strict=True)))


# ---- known probabilities ----


@pytest.mark.parametrize("label", COUNTS)
def test_every_line_begins_with_the_label(tmp_path: Path, label: str) -> None:
    loaded, texts = stub(), ["ab", "", "b a", "?a"]
    scorer = Scorer(loaded, label=label)
    found = sentences_of(scorer, written(tmp_path, "\n".join(texts) + "\n"))
    number = list(COUNTS).index(label)
    assert [row.text for row in found] == texts
    for row in found:
        assert row.log_prob_nats == pytest.approx(sum(token_nats(loaded, number, row.text)), abs=1e-12)
    assert (scorer.summary.label, scorer.summary.prior) == (label, None)


@pytest.mark.parametrize(("prior", "shares"), [("training", PRIOR), ("uniform", [0.25] * 4), (None, PRIOR)])
def test_bayes(tmp_path: Path, prior: Any, shares: list[float]) -> None:
    loaded, texts = stub(), ["ab", "", "b a", "?a"]
    path = written(tmp_path, "\n".join(texts) + "\n")
    scorer = Scorer(loaded, label="all", prior=prior)
    found, labels = sentences_of(scorer, path), by_label(Scorer(loaded, label="all", prior=prior), path)
    for row, nats, posteriors in zip(found, labels.log_probs_nats, labels.posteriors, strict=True):
        wanted = [sum(token_nats(loaded, label, row.text)) for label in range(K)]
        np.testing.assert_allclose(nats, wanted, rtol=0, atol=1e-12)
        assert row.log_prob_nats == pytest.approx(text_nats(wanted, shares), abs=1e-12)
        bayes = shares * np.exp(wanted) / math.exp(row.log_prob_nats)
        np.testing.assert_allclose(posteriors, bayes, rtol=0, atol=1e-12)
    assert labels.likeliest.tolist() == labels.posteriors.argmax(axis=1).tolist()
    summary = scorer.summary
    assert summary.log_prob_nats == pytest.approx(sum(row.log_prob_nats for row in found), abs=1e-12)
    assert (summary.label, summary.prior_name) == ("all", prior or "training")
    assert summary.prior == pytest.approx(dict(zip(COUNTS, shares, strict=True)))


def test_the_probabilities_of_all_texts_add_up_to_one(tmp_path: Path) -> None:
    """With nothing left after three tokens: a token's probability given those before it, whatever the label."""
    loaded = stub()
    texts = ["".join(letters) for count in range(3) for letters in itertools.product("ab ?", repeat=count)]
    model: Any = loaded.model
    model.table[:, :V, :] = np.where(np.arange(V) == EOS_ID, 0.4, 0.15)  # no way to tell how long texts are
    model.table[:, :V, :] /= model.table[:, :V, :].sum(axis=-1, keepdims=True)
    model._log_table = np.log(model.table)
    rows = sentences_of(Scorer(loaded, label="all"), written(tmp_path, "\n".join(texts) + "\n"))
    missing = sum(math.exp(row.log_prob_nats) for row in rows if len(row.text) == 2) / model.table[0, 0, EOS_ID]
    missing *= 1 - model.table[0, 0, EOS_ID]
    assert sum(math.exp(row.log_prob_nats) for row in rows) + missing == pytest.approx(1, abs=1e-12)


def test_tokens_are_scored_given_those_before_whatever_the_label(tmp_path: Path) -> None:
    loaded = stub()
    path = written(tmp_path, "ab b\n\na\n")
    tokens, lines = (
        tokens_of(Scorer(loaded, label="all"), path), sentences_of(Scorer(loaded, label="all"), path),
    )  # fmt: skip
    for number, line in enumerate(lines, start=1):
        nats = [token.log_prob_nats for token in tokens if token.line == number]
        each = np.array([token_nats(loaded, label, line.text) for label in range(K)])
        wanted = [text_nats(each[:, : t + 1].sum(axis=1), PRIOR) for t in range(each.shape[1])]
        assert nats == pytest.approx(np.diff(wanted, prepend=0).tolist(), abs=1e-12)
        assert sum(nats) == pytest.approx(line.log_prob_nats, abs=1e-12)


@pytest.mark.parametrize("options", [{}, {"on_unknown": "skip"}, {"exclude_unknowns": True}])
def test_every_label_gives_the_digits_of_each(tmp_path: Path, options: dict[str, Any]) -> None:
    loaded = stub()
    path = written(tmp_path, "a?b\n\n??\nab ab\n")
    labels = by_label(Scorer(loaded, label="all", **options), path)
    for number, label in enumerate(COUNTS):
        rows = sentences_of(Scorer(loaded, label=label, **options), path)
        assert [row.log_prob_nats for row in rows] == labels.log_probs_nats[:, number].tolist()


def test_unknown_tokens(tmp_path: Path) -> None:
    """Left out of the log probability, or of the text; the summary has what they cost."""
    loaded = stub()
    path = written(tmp_path, "a?b\n")
    plain, excluding, skipping = (
        Scorer(loaded, label="all", **options)
        for options in ({}, {"exclude_unknowns": True}, {"on_unknown": "skip"})  # type: ignore[arg-type]
    )
    (whole,), (without,), (skipped,) = (sentences_of(scorer, path) for scorer in (plain, excluding, skipping))
    tokens = tokens_of(Scorer(loaded, label="all"), path)
    known = sum(token.log_prob_nats or 0.0 for token in tokens if not token.unknown)
    assert (without.tokens, without.unknowns, skipped.tokens, skipped.unknowns) == (3, 1, 3, 1)
    assert without.log_prob_nats == pytest.approx(known, abs=1e-12)
    assert plain.summary == excluding.summary
    assert plain.summary.log_prob_nats == whole.log_prob_nats
    assert plain.summary.unknown_log_prob_nats == pytest.approx(whole.log_prob_nats - known, abs=1e-12)
    posteriors = [by_label(Scorer(loaded, label="all", exclude_unknowns=exclude), path) for exclude in (False, True)]
    assert posteriors[0].posteriors.tolist() == posteriors[1].posteriors.tolist()
    ab = [sum(token_nats(loaded, label, "ab")) for label in range(K)]
    assert skipped.log_prob_nats == pytest.approx(text_nats(ab, PRIOR), abs=1e-12)


def test_the_corpus_has_the_summary_of_its_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "ab\n\n \nb?b\n")
    scorers = [Scorer(stub(), label="all") for _ in range(3)]
    sentences_of(scorers[0], path)
    tokens_of(scorers[1], path)
    assert sum(scorers[2].corpus(path)) == 4
    assert scorers[0].summary == scorers[1].summary == scorers[2].summary


def test_an_unknown_that_is_an_error_comes_after_the_lines_before(tmp_path: Path) -> None:
    scorer = Scorer(stub(), label="all", on_unknown="error")
    rows = []

    def collect() -> None:
        for window in scorer.sentences(written(tmp_path, "ab\nb\na?\n")):
            rows.extend(window.texts)

    with pytest.raises(InputError, match="line 3"):
        collect()
    assert rows == ["ab", "b"]


def test_an_unlearnt_unknown_is_said_once(tmp_path: Path) -> None:
    told: list[str] = []
    scorer = Scorer(stub(header={"corpus": {"unknowns": 0}}), label="all", warn=told.append)
    sentences_of(scorer, written(tmp_path, "?\n?\n"))
    assert told == [UNLEARNT]


def test_nothing_to_score(tmp_path: Path) -> None:
    scorer = Scorer(stub(), label="all")
    assert sentences_of(scorer, written(tmp_path, "")) == []
    assert scorer.summary.tokens == 0


def test_one_label_is_certain(tmp_path: Path) -> None:
    loaded, path = stub({"only": 7}), written(tmp_path, "ab\n")
    assert by_label(Scorer(loaded, label="all"), path).posteriors.tolist() == [[1.0]]
    assert sentences_of(Scorer(loaded, label="all"), path) == sentences_of(Scorer(loaded, label="only"), path)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({}, UsageError, "give --label; it knows left, right, never, 50 %"),
        ({"label": "lift"}, InputError, "did it mean left?"),
        ({"label": "left", "prior": "uniform"}, UsageError, "--prior uniform: weighs the labels of --label all"),
        ({"prior": "training"}, UsageError, "--prior training: weighs the labels of --label all"),
    ],
)
def test_labels_that_cannot_be(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        Scorer(stub(), **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("label", ["all", "left"])
def test_a_model_without_labels(label: str) -> None:
    loaded = stub()
    loaded.label_side = None
    with pytest.raises(UsageError, match=f"--label '{label}': this model was trained without labels; leave it out"):
        Scorer(loaded, label=label)


# ---- whatever the batch ----


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(st.text("ab ?", max_size=12), max_size=20),
    sizes=st.fixed_dictionaries(
        {
            "WINDOW_CHARACTERS": st.integers(1, 60),
            "LANES": st.integers(1, 7),
            "STEPS": st.integers(1, 7),
            "PASS_FLOATS": st.integers(1, 400),
        }
    ),
    on_unknown=st.sampled_from(["unk", "skip"]),
)
def test_no_size_of_the_batches_shows(tmp_path: Path, lines: list[str], sizes: dict[str, int], on_unknown: str) -> None:
    loaded = stub()
    path = written(tmp_path, "".join(line + "\n" for line in lines))
    expected = sentences_of(Scorer(loaded, label="all", on_unknown=on_unknown), path)
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            patch.setattr(scoring_batches, name, size)
        scorer = Scorer(loaded, label="all", on_unknown=on_unknown)
        found = sentences_of(scorer, path)
        labels = by_label(Scorer(loaded, label="all", on_unknown=on_unknown), path) if lines else None
    assert found == expected
    assert [row.text for row in found] == lines
    if labels is not None:
        np.testing.assert_allclose(labels.posteriors.sum(axis=1), 1, rtol=1e-12)


def test_hardly_anything_is_computed_besides_the_tokens(tmp_path: Path) -> None:
    loaded = stub()
    model: Any = loaded.model
    rng = np.random.default_rng(0)
    lines = ["".join(rng.choice(list("ab "), rng.integers(1, 30))) for _ in range(3000)]
    scorer = Scorer(loaded, label="all")
    sentences_of(scorer, written(tmp_path, "\n".join(lines)))
    assert K * scorer.summary.tokens <= model.steps < 1.03 * K * scorer.summary.tokens


def test_a_long_line_is_scored_a_few_labels_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that memory is bounded by a window, or by the line, but not by the line times the labels."""
    loaded = stub()
    path = written(tmp_path, "ab" * 20 + "\n")
    expected = sentences_of(Scorer(loaded, label="all"), path)
    monkeypatch.setattr(scoring_batches, "WINDOW_CHARACTERS", 90)
    rows = []
    log_probs = loaded.model.log_probs

    def watch(inputs: Any, *others: Any) -> Any:
        rows.append(inputs.shape[1])
        return log_probs(inputs, *others)

    monkeypatch.setattr(loaded.model, "log_probs", watch)
    assert sentences_of(Scorer(loaded, label="all"), path) == expected
    assert max(rows) == 2


# ---- a trained model, and the command ----


@pytest.fixture(scope="module")
def towns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a few hundred towns' names, and towns.txt, the names."""
    folder = tmp_path_factory.mktemp("towns")
    lines = (ROOT / "corpora" / "towns.tsv").read_text("utf-8").splitlines()[:600]
    (folder / "towns.tsv").write_text("\n".join(lines) + "\n")
    (folder / "towns.txt").write_text("".join(line.split("\t")[1] + "\n" for line in lines))
    write_conditioned_model(folder / "towns.npz", folder / "towns.tsv", epochs=8)
    write_tiny_model(folder / "plain.npz")
    return folder


def charlm(folder: Path, *arguments: str, text: str = "towns.txt", model: str = "towns.npz") -> Result:
    return CliRunner().invoke(main, ["score", str(folder / model), str(folder / text), *arguments])


def objects(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    result = charlm(folder, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_likeliest_label_is_mostly_the_right_one(towns: Path) -> None:
    result = charlm(towns, "--label", "all")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    pairs = [line.split("\t") for line in (towns / "towns.tsv").read_text("utf-8").splitlines()]
    assert [row[5] for row in rows] == [text for _, text in pairs]
    right = [row[3] == label for row, (label, _) in zip(rows, pairs, strict=True)]
    assert np.mean(right) > 0.85
    posteriors = np.array([float(row[4]) for row in rows])
    assert np.mean(posteriors) == pytest.approx(np.mean(right), abs=0.1)  # it knows how sure it may be


def test_every_label_gives_the_digits_of_each_command(towns: Path) -> None:
    rows = objects(towns, "--label", "all")
    for label in rows[0]["log_probs"]:
        assert [row["log_prob"] for row in objects(towns, "--label", label)] == [
            row["log_probs"][label] for row in rows
        ]


@pytest.mark.parametrize("prior", ["training", "uniform"])
def test_json(towns: Path, prior: str) -> None:
    result = charlm(towns, "--label", "all", "--prior", prior, "--json")
    summary = json.loads(result.stderr.splitlines()[-1])
    assert summary["label"] == "all"
    assert sum(summary["prior"].values()) == pytest.approx(1, rel=1e-12)
    assert (len(set(summary["prior"].values())) == 1) == (prior == "uniform")
    total = 0.0
    for row in map(json.loads, result.stdout.splitlines()):
        assert list(row) == [
            "log_prob", "tokens", "unknowns", "label", "posterior", "log_probs", "posteriors", "text",
        ]  # fmt: skip
        assert sum(row["posteriors"].values()) == pytest.approx(1, rel=1e-12)
        assert row["posterior"] == max(row["posteriors"].values()) == row["posteriors"][row["label"]]
        joint = {name: summary["prior"][name] * math.exp(nats) for name, nats in row["log_probs"].items()}
        assert row["log_prob"] == pytest.approx(math.log(sum(joint.values())), abs=1e-9)
        assert row["posteriors"] == pytest.approx(
            {name: p / sum(joint.values()) for name, p in joint.items()}, abs=1e-9
        )
        total += row["log_prob"]
    assert summary["log_prob_nats"] == pytest.approx(total, rel=1e-12)
    bits = objects(towns, "--label", "all", "--prior", prior, "--log-base", "2")[0]
    first = json.loads(result.stdout.splitlines()[0])
    for name, nats in first["log_probs"].items():
        assert bits["log_probs"][name] == pytest.approx(nats / math.log(2))
    assert bits["posteriors"] == first["posteriors"]


def test_columns(towns: Path) -> None:
    shown, described = charlm(towns, "--label", "all").stdout.splitlines(), objects(towns, "--label", "all")
    for line, row in zip(shown, described, strict=True):
        assert line == (
            f"{row['log_prob']:.6f}\t{row['tokens']}\t{row['unknowns']}\t{row['label']}\t{row['posterior']:.6f}"
            f"\t{row['text']}"
        )
    plain = charlm(towns, "--label", "Ilumo").stdout.splitlines()
    assert plain == [
        f"{row['log_prob']:.6f}\t{row['tokens']}\t{row['unknowns']}\t{row['text']}"
        for row in objects(towns, "--label", "Ilumo")
    ]


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_order_change_nothing(towns: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.engine.threads.available_cores", lambda: 3)
    lines = charlm(towns, "--label", "all", "--json").stdout.splitlines()
    assert charlm(towns, "--label", "all", "--json", "--threads", str(threads)).stdout.splitlines() == lines
    texts = (towns / "towns.txt").read_text().splitlines()
    (towns / "turned.txt").write_text("\n".join(reversed(texts[:50])))
    turned = charlm(towns, "--label", "all", "--json", text="turned.txt").stdout.splitlines()
    assert turned == lines[49::-1]


def test_the_summary_states_the_label_and_the_prior(towns: Path) -> None:
    named = charlm(towns, "--label", "Ilumo", "--per", "corpus").stdout.splitlines()
    assert named[0].split() == ["label", "Ilumo"]
    weighed = charlm(towns, "--label", "all", "--per", "corpus").stdout.splitlines()
    assert weighed[0].split() == ["label", "every", "one", "of", "5"]
    assert weighed[1].split()[:3] == ["prior", "training:", "Caldra"]
    assert weighed[1].count("%") == 5
    assert len({line.index(word) for line, word in zip(weighed, ("every", "training", "sentences"), strict=False)}) == 2
    uniform = charlm(towns, "--label", "all", "--prior", "uniform", "--per", "corpus").stdout.splitlines()
    assert uniform[1].split()[:4] == ["prior", "uniform:", "Caldra", "20.00%,"]
    assert charlm(towns, "--label", "all").stderr.splitlines()[-len(weighed) :] == weighed


def test_a_long_list_of_labels_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = stub({f"{number}": 1 for number in range(11)})
    monkeypatch.setattr("charlm.workflows.model_files.load_model", lambda path, threads: loaded)
    result = CliRunner().invoke(main, ["score", "m.npz", "--label", "all", "--per", "corpus"], input="ab\n")
    assert result.stdout.splitlines()[1].endswith("7 9.09% and 3 more")


def test_tokens_and_empty_lines_and_standard_input(towns: Path) -> None:
    run: Callable[..., Result] = CliRunner().invoke
    model = str(towns / "towns.npz")
    result = run(main, ["score", model, "--label", "all"], input="\nCaltara\n")
    first, second = (line.split("\t") for line in result.stdout.splitlines())
    assert (first[1], first[2], first[5]) == ("1", "0", "")
    assert (second[3], second[5]) == ("Caldra", "Caltara")
    tokens = run(main, ["score", model, "--label", "all", "--per", "token"], input="\nCaltara\n")
    rows = [line.split("\t") for line in tokens.stdout.splitlines()]
    assert len(rows) == 9
    assert sum(float(row[3]) for row in rows[1:]) == pytest.approx(float(second[0]), abs=1e-5)


def test_labels_of_any_spelling_come_out_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is called as every label is, and one that a template could take for its own."""
    loaded = stub({"%s %d": 3, 'Éire "x"\\': 3, "all": 1})
    monkeypatch.setattr("charlm.workflows.model_files.load_model", lambda path, threads: loaded)
    result = CliRunner().invoke(main, ["score", "m.npz", "--label", "all", "--json"], input="a\tb\n")
    row = json.loads(result.stdout)
    assert list(row["log_probs"]) == list(row["posteriors"]) == ["%s %d", 'Éire "x"\\', "all"]
    result = CliRunner().invoke(main, ["score", "m.npz", "--label", "all"], input="a\tb\n")
    assert result.stdout.split("\t", 5)[3] == row["label"]
    assert result.stdout.endswith("\ta\tb\n")


def test_what_json_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = stub({"left": 1, "right": 1})
    model: Any = loaded.model
    model._log_table[:, V + 1, 2] = -np.inf
    monkeypatch.setattr("charlm.workflows.model_files.load_model", lambda path, threads: loaded)
    result = CliRunner().invoke(main, ["score", "m.npz", "--label", "all", "--json"], input="a\n")
    row = json.loads(result.stdout)
    assert row["log_probs"]["left"] is None
    assert row["posteriors"] == {"left": 0.0, "right": 1.0}


@pytest.mark.parametrize(
    ("model", "options", "code", "message"),
    [
        ("towns.npz", [], 2, "give --label; it knows Caldra"),
        ("plain.npz", ["--label", "all"], 2, "--label 'all': this model was trained without labels; leave it out"),
        ("plain.npz", ["--prior", "uniform"], 2, "--prior uniform: weighs the labels of --label all; leave it out"),
        ("towns.npz", ["--label", "Wylin"], 1, "--label: the label 'Wylin' is unknown to the model; did it mean"),
        ("towns.npz", ["--label", "Wyllin", "--prior", "uniform"], 2, "--prior uniform: weighs the labels"),
        ("towns.npz", ["--label", "all", "--prior", "flat"], 2, "'flat' is not one of 'training', 'uniform'"),
    ],
)  # fmt: skip
def test_bad_input(towns: Path, model: str, options: list[str], code: int, message: str) -> None:
    result = charlm(towns, *options, model=model)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_summary_without_labels_is_as_before() -> None:
    assert not {"label", "prior"} & set(Summary().to_json())
