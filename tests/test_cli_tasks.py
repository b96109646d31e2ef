"""``charlm train --task ...`` and ``charlm predict``: the four shapes of sequence problem from the command line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from charlm import checkpoint
from charlm.cli.main import main
from charlm.workflows.trained import load_trained
from tests.corpora_files import CORPORA

RUNNER = CliRunner()
QUICK = ["--hidden-size", "16", "--embedding-size", "8", "--threads", "1"]
FILES = {"classify": "towns.tsv", "tag": "visits.conll", "transduce": "sounds.tsv"}
OPTIONS: dict[str, list[str]] = {
    "classify": ["--task", "classify", "--epochs", "2"],
    "tag": ["--task", "tag", "--epochs", "1"],
    "transduce": ["--task", "transduce", "--target-level", "word", "--attention", "--epochs", "1"],
    "lm": ["--condition", "label", "--epochs", "1"],
}


def run(*arguments: object, text: str | None = None, code: int = 0) -> Result:
    result = RUNNER.invoke(main, [str(argument) for argument in arguments], input=text)
    assert result.exit_code == code, result.stderr
    assert "Traceback" not in result.stderr
    return result


def fails(*arguments: object, text: str | None = None, code: int = 1) -> str:
    result = run(*arguments, text=text, code=code)
    assert result.stdout == ""
    return result.stderr.splitlines()[-1]


def some_lines(name: str, out: Path, lines: int) -> str:
    """The beginning of a corpus that ships."""
    text = (CORPORA / name).read_text("utf-8").splitlines(keepends=True)[:lines]
    out.write_text("".join(text), "utf-8")
    return str(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of each task, trained a little on a part of a corpus that ships."""
    folder = tmp_path_factory.mktemp("tasks")
    for task, options in OPTIONS.items():
        file = some_lines(FILES.get(task, FILES["classify"]), folder / f"{task}.txt", 600)
        run("train", file, "-o", folder / f"{task}.npz", *options, *QUICK, "--quiet")
    return folder


# Each task, from a text to a prediction


def test_a_label_for_each_line(folder: Path) -> None:
    result = run("predict", folder / "classify.npz", text="Sanmaranto\n\nUnheard of \u20ac\n")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[2] for row in rows] == ["Sanmaranto", "", "Unheard of \u20ac"]
    labels = set(load_trained(folder / "classify.npz", 1).header["labels"])
    assert {row[0] for row in rows} <= labels
    assert all(0 < float(row[1]) <= 1 for row in rows)


def test_the_next_labels(folder: Path) -> None:
    (line,) = run("predict", folder / "classify.npz", "--top", "99", text="Rohoa\n").stdout.splitlines()
    *columns, text = line.split("\t")
    shares = [float(share) for share in columns[1::2]]
    assert text == "Rohoa"
    assert sorted(columns[::2]) == sorted(load_trained(folder / "classify.npz", 1).header["labels"])
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_labels_as_json(folder: Path) -> None:
    (line,) = run("predict", folder / "classify.npz", "--json", "--top", "2", text="Rohoa\n").stdout.splitlines()
    value = json.loads(line)
    assert value["text"] == "Rohoa"
    assert len(value["labels"]) == 2
    assert value["labels"][0]["probability"] >= value["labels"][1]["probability"]


def test_how_good_labels_are(folder: Path) -> None:
    table = run("predict", folder / "classify.npz", folder / "classify.txt", "--evaluate").stdout
    assert "accuracy" in table
    assert "true label" in table
    figures = json.loads(
        run("predict", folder / "classify.npz", folder / "classify.txt", "--evaluate", "--json").stdout
    )  # fmt: skip
    assert figures["items"] == 600
    assert 600 - sum(one["items"] for one in figures["confusions"]) == round(600 * figures["accuracy"])
    assert figures["accuracy"] > 0.4  # two epochs of a small network; guessing gives 0.3


def test_conll_comes_back(folder: Path) -> None:
    text = "Tom\nsaw\nRome\n\nAnn\n"
    lines = run("predict", folder / "tag.npz", text=text).stdout.split("\n")
    assert [line.split("\t")[0] for line in lines] == ["Tom", "saw", "Rome", "", "Ann", ""]
    assert all(line.split("\t")[1] for line in lines if line)


@pytest.mark.parametrize("separator", ["\t", " "])
def test_other_columns_stay(folder: Path, separator: str) -> None:
    text = f"Tom{separator}NNP{separator}O\nsaw{separator}VBD{separator}O\n"
    lines = run("predict", folder / "tag.npz", text=text).stdout.splitlines()
    assert [line.split(separator)[:3] for line in lines[:2]] == [["Tom", "NNP", "O"], ["saw", "VBD", "O"]]
    assert [len(line.split(separator)) for line in lines] == [4, 4]


def test_how_good_tags_are(folder: Path) -> None:
    table = run("predict", folder / "tag.npz", folder / "tag.txt", "--evaluate").stdout
    assert "tags right" in table
    assert table.splitlines()[2].split() == ["entity", "precision", "recall", "F1", "there", "found", "correct"]
    figures = json.loads(run("predict", folder / "tag.npz", folder / "tag.txt", "--evaluate", "--json").stdout)
    assert figures["entities"]["all"]["there"] > 50
    assert figures["token_accuracy"] > 0.6


def test_a_target_for_each_line(folder: Path) -> None:
    result = run("predict", folder / "transduce.npz", text="teaff\n\nkeaff\n")
    assert len(result.stdout.splitlines()) == 3


def test_the_best_targets(folder: Path) -> None:
    result = run("predict", folder / "transduce.npz", "--n-best", "3", text="teaff\nkeaff\n")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == ["1"] * 3 + ["2"] * 3
    nats = [float(row[1]) for row in rows]
    assert nats[:3] == sorted(nats[:3], reverse=True)
    assert len({row[2] for row in rows[:3]}) == 3
    objects = run("predict", folder / "transduce.npz", "--n-best", "3", "--json", text="teaff\n").stdout
    found = json.loads(objects)
    assert found["source"] == "teaff"
    assert [round(one["log_prob_nats"], 6) for one in found["targets"]] == nats[:3]


def test_a_wider_beam_finds_no_less_likely_target(folder: Path) -> None:
    best = [
        json.loads(run("predict", folder / "transduce.npz", "--beam", width, "--json", text="reebloam\n").stdout)
        for width in (1, 8)
    ]
    narrow, wide = (one["targets"][0]["log_prob_nats"] for one in best)
    assert wide >= narrow - 1e-9


def test_how_good_targets_are(folder: Path) -> None:
    figures = json.loads(
        run("predict", folder / "transduce.npz", folder / "transduce.txt", "--evaluate", "--json").stdout
    )  # fmt: skip
    assert figures["pairs"] == 600
    assert 0 <= figures["sequence_accuracy"] <= 1
    assert "edits" in run("predict", folder / "transduce.npz", folder / "transduce.txt", "--evaluate").stdout


def test_texts_of_a_label(folder: Path) -> None:
    label = load_trained(folder / "lm.npz", 1).header["labels"][0]
    assert len(run("sample", folder / "lm.npz", "--label", label, "-n", "3").stdout.splitlines()) == 3
    row = run("score", folder / "lm.npz", "--label", "all", text="Rohoa\n").stdout.rstrip("\n").split("\t")
    assert row[-1] == "Rohoa"
    assert row[3] in load_trained(folder / "lm.npz", 1).header["labels"]


# Bits


@pytest.mark.parametrize("task", ["classify", "tag", "transduce", "lm"])
def test_going_on_gives_the_same_bits(folder: Path, tmp_path: Path, task: str) -> None:
    file = some_lines(FILES.get(task, FILES["classify"]), tmp_path / "text", 200)
    # The seed also says which labelled lines are held out, and is not given again.
    options = [*OPTIONS[task][:-2], *QUICK, "--schedule", "constant", "--quiet", "--seed", "5"]
    run("train", file, "-o", tmp_path / "once.npz", *options, "--epochs", "3")
    run("train", file, "-o", tmp_path / "twice.npz", *options, "--epochs", "1")
    run("train", file, "-o", tmp_path / "twice.npz", "--resume", "--epochs", "3", "--quiet", "--threads", "1")
    once, twice = (checkpoint.load(tmp_path / f"{name}.npz").arrays for name in ("once", "twice"))
    assert {path: array.tobytes() for path, array in once.items()} == {p: a.tobytes() for p, a in twice.items()}


@pytest.mark.parametrize("task", ["classify", "tag", "transduce"])
def test_threads_change_no_bit(tmp_path: Path, task: str) -> None:
    file = some_lines(FILES[task], tmp_path / "text", 200)
    models = []
    for threads in ("1", "2"):
        out = tmp_path / f"{threads}.npz"
        run("train", file, "-o", out, *OPTIONS[task], *QUICK[:-1], threads, "--quiet")
        models.append({path: array.tobytes() for path, array in checkpoint.load(out).arrays.items()})
    assert models[0] == models[1]


@pytest.mark.parametrize("task", ["classify", "tag", "transduce"])
def test_what_shares_a_window_changes_nothing(folder: Path, task: str) -> None:
    texts = {"classify": ["Rohoa\n", "Sanmaranto\n"], "tag": ["Tom\nsaw\nRome\n\n", "Ann\n\n"]}
    inputs = texts.get(task, ["teaff\n", "reebloam\n"])
    alone = [run("predict", folder / f"{task}.npz", "--json", text=text).stdout for text in inputs]
    assert run("predict", folder / f"{task}.npz", "--json", text="".join(inputs)).stdout == "".join(alone)


@pytest.mark.parametrize("task", ["classify", "tag", "transduce", "lm"])
def test_weights_of_another_model(folder: Path, tmp_path: Path, task: str) -> None:
    out = tmp_path / "next.npz"
    run("train", folder / f"{task}.txt", "-o", out, "--init-from", folder / f"{task}.npz", "--epochs", "1", "--quiet")
    before, after = load_trained(folder / f"{task}.npz", 1), load_trained(out, 1)
    assert after.task == before.task
    assert after.model.config == before.model.config
    assert after.header.get("labels") == before.header.get("labels")


# What is chosen, and what is told


def test_the_plan_and_a_glimpse_are_told(tmp_path: Path) -> None:
    file = some_lines("towns.tsv", tmp_path / "towns.tsv", 200)
    told = run("train", file, "-o", tmp_path / "m.npz", "--task", "classify", "--epochs", "1", *QUICK).stderr
    assert "5 labels" in told
    assert "nats/label" in told
    assert "accuracy" in told
    assert "Try: charlm predict" in told


def test_labels_seen_once_or_not_held_out_are_told(tmp_path: Path) -> None:
    text = "".join(f"A\ta{i}\nB\tb{i}\n" for i in range(30)) + "Rare\tx\n"
    (tmp_path / "t.tsv").write_text(text)
    options = ["--task", "classify", "--epochs", "1", *QUICK]
    told = run("train", tmp_path / "t.tsv", "-o", tmp_path / "m.npz", *options).stderr
    assert "seen once, which is little to learn from: Rare" in told
    assert "not among what is held out: Rare" in told


def test_one_label_alone_is_no_choice(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("A\ta\n" * 30)
    assert "one label only" in fails("train", tmp_path / "t.tsv", "-o", tmp_path / "m.npz", "--task", "classify")


def test_sentences_of_any_length(tmp_path: Path, folder: Path) -> None:
    text = "word\n" * 5000 + "\n" + "\n\n" + "x\n"
    lines = run("predict", folder / "tag.npz", text=text).stdout.split("\n")
    assert len(lines) == len(text.split("\n"))
    assert run("predict", folder / "tag.npz", text="").stdout == ""


# Bad input


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("classify", "no tab here\n", "line 1 has no tab; write label<TAB>text"),
        ("tag", "a b\nc\n", "line 2 has 1 column"),
        ("transduce", "source\n", "line 1 has no tab; write source<TAB>target"),
        ("lm", "no tab here\n", "line 1 has no tab; write label<TAB>text"),
    ],
)
def test_files_of_the_wrong_shape(tmp_path: Path, task: str, text: str, message: str) -> None:
    (tmp_path / "bad").write_text(text)
    line = fails("train", tmp_path / "bad", "-o", tmp_path / "m.npz", *OPTIONS[task], *QUICK)
    assert message in line
    assert not (tmp_path / "m.npz").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "lm", "--bidirectional"], "a language model may not see the future"),
        (["--task", "classify", "--attention"], "--attention has no meaning for --task classify"),
        (["--task", "classify", "--bptt", "8"], "--bptt has no meaning for --task classify"),
        (["--task", "classify", "--level", "byte"], "label<TAB>text is one sequence a line"),
        (["--task", "tag", "--level", "char"], "leave out --level, --sequence"),
        (["--task", "transduce", "--level", "byte"], "leave out --sequence, --level byte"),
        (["--task", "transduce", "--hidden-size", "7"], "give an even number"),
        (["--task", "tag", "--condition", "label"], "--condition has no meaning for --task tag"),
        (["--target-level", "word"], "--target-level has no meaning for --task lm"),
    ],
)
def test_options_of_another_task(folder: Path, tmp_path: Path, options: list[str], message: str) -> None:
    task = next((name for name in FILES if name in options), "classify")
    line = fails("train", folder / f"{task}.txt", "-o", tmp_path / "m.npz", *options, code=2)
    assert message in line


@pytest.mark.parametrize(
    ("command", "task", "message"),
    [
        ("predict", "lm", "this is a language model: use sample or score"),
        ("sample", "tag", "this is a tagger: use predict"),
        ("score", "classify", "this is a classifier: use predict"),
        ("sample", "transduce", "this is a transducer: use predict"),
    ],
)
def test_a_model_given_to_the_wrong_command(folder: Path, command: str, task: str, message: str) -> None:
    assert message in fails(command, folder / f"{task}.npz", code=1)


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("classify", ["--beam", "2"]),
        ("tag", ["--top", "2"]),
        ("transduce", ["--tag-column", "1"]),
        ("tag", ["--tag-column", "2"]),
        ("classify", ["--top", "2", "--evaluate"]),
        ("transduce", ["--n-best", "2", "--evaluate"]),
    ],
)
def test_options_of_another_predictor(folder: Path, task: str, options: list[str]) -> None:
    assert "leave it out" in fails("predict", folder / f"{task}.npz", *options, text="a\n", code=2)


def test_more_targets_than_the_beam_has(folder: Path) -> None:
    line = fails("predict", folder / "transduce.npz", "--beam", "2", "--n-best", "3", text="a\n", code=2)
    assert "--beam 3" in line


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("classify", "\n \n", "holds nothing"),
        ("classify", "Rohoa\n", "no tab"),
        ("tag", "Tom\n", "only one column"),
        ("transduce", "teaff\n", "no tab"),
    ],
)
def test_answers_that_cannot_be_compared(folder: Path, task: str, text: str, message: str) -> None:
    options = ["--token-column", "1", "--tag-column", "2"] if task == "tag" else []
    assert message in fails("predict", folder / f"{task}.npz", "--evaluate", *options, text=text)


def test_a_tag_never_seen_is_one_that_is_not_found(folder: Path) -> None:
    figures = json.loads(
        run("predict", folder / "tag.npz", "--evaluate", "--json", text="Tom B-ship\nsaw O\n").stdout
    )  # fmt: skip
    assert figures["entities"]["ship"]["there"] == 1
    assert figures["entities"]["ship"]["found"] == 0


@pytest.mark.parametrize(
    ("task", "change"),
    [
        ("classify", {"labels": ["A"]}), ("classify", {"labels": None}), ("classify", {"task": "paint"}),
        ("classify", {"vocabulary": ["<unk>", "<eos>", "a"]}), ("tag", {"characters": ["<unk>"]}),
        ("tag", {"characters": ["<unk>", "<eos>", "a"]}), ("tag", {"text": {"token_column": "x"}}),
        ("transduce", {"target_vocabulary": 3}), ("transduce", {"target_tokenizer": {}}),
        ("classify", {"task": ["classify"]}), ("tag", {"task": "classify"}), ("transduce", {"task": "tag"}),
    ],
)  # fmt: skip
def test_headers_that_make_no_sense(folder: Path, tmp_path: Path, task: str, change: dict[str, Any]) -> None:
    loaded = checkpoint.load(folder / f"{task}.npz")
    header = {key: value for key, value in loaded.header.items() if key not in checkpoint.RESERVED} | change
    checkpoint.save(tmp_path / "bad.npz", header, loaded.arrays)
    assert str(tmp_path / "bad.npz") in fails("predict", tmp_path / "bad.npz", text="a\n")


def test_another_task_on_resuming(folder: Path, tmp_path: Path) -> None:
    for name in ("classify.npz", "classify.resume.npz"):
        shutil.copy(folder / name, tmp_path / name)
    out = tmp_path / "classify.npz"
    line = fails("train", folder / "classify.txt", "-o", out, "--resume", "--task", "tag", code=2)
    assert "--task tag: this training began with classify" in line
    line = fails("train", folder / "classify.txt", "-o", out, "--resume", "--bidirectional", code=2)
    assert "--bidirectional: this training began without it; resume without the option, or begin anew" in line


# What a careless user gives


@pytest.mark.parametrize("task", ["classify", "transduce"])
def test_a_text_with_its_answers(folder: Path, task: str) -> None:
    line = fails("predict", folder / f"{task}.npz", folder / f"{task}.txt")
    assert "line 1 has a tab" in line
    assert "--evaluate" in line


def test_every_line_is_answered_by_a_line(folder: Path) -> None:
    text = "\n\nTom\nmet\n\n\n\nJack\n\n"
    lines = run("predict", folder / "tag.npz", text=text).stdout.split("\n")
    assert [line.split("\t")[0] for line in lines] == text.split("\n")
    assert run("predict", folder / "tag.npz", text="\n\n").stdout == "\n\n"


def test_sentences_a_line_are_told(folder: Path) -> None:
    assert "column 1 of 3" in run("predict", folder / "tag.npz", text="Tom was here\n").stderr


def test_a_label_never_seen_is_always_wrong(folder: Path) -> None:
    result = run("predict", folder / "classify.npz", "--evaluate", text="Nowhere\tRohoa\n")
    assert "always wrong: Nowhere" in result.stdout
    figures = json.loads(run("predict", folder / "classify.npz", "--evaluate", "--json", text="X\tRohoa\n").stdout)
    assert figures["accuracy"] == 0


def test_unknown_tokens_are_told(folder: Path) -> None:
    result = run("predict", folder / "classify.npz", text="\u6771\u4eac\n")
    assert "2 of 2 tokens unknown to the model" in result.stderr


def test_many_labels_of_two_lines_each(tmp_path: Path) -> None:
    (tmp_path / "many.tsv").write_text("".join(f"label{i // 2}\ttext{i}\n" for i in range(120)))
    options = ["--task", "classify", "--epochs", "1", *QUICK]
    told = run("train", tmp_path / "many.tsv", "-o", tmp_path / "m.npz", *options).stderr
    assert "12 held out" in told
    shown = run("predict", tmp_path / "m.npz", tmp_path / "many.tsv", "--evaluate").stdout
    assert "true label" in shown
    assert max(map(len, shown.splitlines())) < 80


def test_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    file = some_lines("sounds.tsv", tmp_path / "s.tsv", 300)
    told = run("train", file, "-o", tmp_path / "m.npz", "--task", "classify", "--epochs", "1", "--quiet", *QUICK).stderr
    assert all(len(line) < 250 for line in told.splitlines())


def test_a_validation_text_of_other_tags(tmp_path: Path) -> None:
    """Nothing could be learnt of it: its loss would be 0 / 0."""
    (tmp_path / "a.conll").write_text("Ada\tP\nruns\tO\n\n")
    (tmp_path / "b.conll").write_text("Eve\tX\nruns\tY\n\n")
    arguments = [
        "train",
        tmp_path / "a.conll",
        "--valid",
        tmp_path / "b.conll",
        "-o",
        tmp_path / "m.npz",
        "--task",
        "tag",
    ]
    assert "b.conll: the training text has none of its tags" in fails(*arguments, "--quiet")
    assert not (tmp_path / "m.npz").exists()


def test_a_line_with_a_tab_is_named_whichever_window_it_is_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.workflows.scoring_batches.WINDOW_CHARACTERS", 10)
    result = run("predict", folder / "classify.npz", text="Holvik\n" * 7 + "x\ty\n", code=1)
    assert "line 8 has a tab" in result.stderr
    assert len(result.stdout.splitlines()) == 7


def test_columns_the_wrong_way_round_are_told(folder: Path, tmp_path: Path) -> None:
    text = tmp_path / "swapped.tsv"
    text.write_text("".join(f"name{i}\tWyllin\n" for i in range(1200)))
    line = fails("predict", folder / "classify.npz", text, "--evaluate")
    assert "more than 1,000 labels that are unknown to the model; is each line label<TAB>text" in line


def test_a_rate_that_is_infinite_is_null(folder: Path) -> None:
    result = run("predict", folder / "transduce.npz", "--evaluate", "--json", text="abc\t\n")
    figures = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(name))
    assert figures["token_error_rate"] is None or figures["edits"] == 0


def test_characters_may_be_asked_for_again(folder: Path, tmp_path: Path) -> None:
    for name in ("tag.npz", "tag.resume.npz"):
        shutil.copy(folder / name, tmp_path / name)
    text, out = folder / "tag.txt", tmp_path / "tag.npz"
    assert "going on" in run("train", text, "-o", out, "--resume", "--char-features", "--epochs", "2").stderr
    line = fails("train", text, "-o", out, "--resume", "--no-char-features", code=2)
    assert "--no-char-features: this training began with --char-features; resume without the option" in line
    more = ["--init-from", folder / "tag.npz", "-o", tmp_path / "b.npz", "--epochs", "1"]
    shown = run("train", text, *more, "--token-column", "1", "--char-features").stderr
    assert "--char-features" not in shown
    assert re.search(r"--char-features +yes +as in --init-from", run("train", text, *more).stderr)


def test_a_model_to_begin_with_brings_its_columns(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("x a X\nx b Y\n\nx b Y\n\n" * 9)
    run("train", text, "-o", tmp_path / "a.npz", "--token-column", "2", *OPTIONS["tag"], *QUICK, "--quiet")
    run("train", text, "-o", tmp_path / "b.npz", "--init-from", tmp_path / "a.npz", "--epochs", "1", "--quiet")
    assert checkpoint.load(tmp_path / "b.npz").header["text"]["token_column"] == 2
    text.write_text("x a X\nx b Z\n\n" * 9)
    line = fails("train", text, "-o", tmp_path / "c.npz", "--init-from", tmp_path / "a.npz", "--epochs", "1")
    assert "the tag 'Z' is unknown to the model" in line


def test_unknown_tokens_of_a_tagger_are_told(folder: Path) -> None:
    known = (folder / "tag.txt").read_text("utf-8").split()[0]
    result = run("predict", folder / "tag.npz", text=f"Qwyjibo\n{known}\n")
    assert "1 of 2 tokens unknown to the model" in result.stderr
