"""``charlm sample``: tiny models on disk, click's runner, and real processes and terminals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from charlm import __version__
from charlm.cli.main import main
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS_ID
from tests.stub_model import vocabulary_of, write_tiny_model
from tests.terminal import process_on_terminal

ROOT = Path(__file__).parents[1]
BYTES = Tokenizer("byte", "file", "none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "names.npz", sharpness=6, biases={"<eos>": 1.5})
    write_tiny_model(folder / "book.npz", "abcdé \n", Tokenizer(sequence="file"), sharpness=3, biases={"<eos>": -9})
    write_tiny_model(folder / "poem.npz", "abc\\\n", Tokenizer(sequence="paragraph"), biases={"<eos>": 1})
    words = ["the", "cat", "saw", "a", "dog", ",", "."]
    write_tiny_model(folder / "words.npz", words, Tokenizer("word"), biases={"<eos>": 0.5})
    write_tiny_model(folder / "bytes.npz", [chr(i) for i in range(256)], BYTES, biases={"<eos>": -9, "\x1b": 3})
    write_tiny_model(folder / "control.npz", "ab\x1b\x07\x9b", biases={"\x1b": 2, "\x9b": 2})
    return folder


def run(folder: Path, *arguments: str | int, **options: Any) -> Result:
    """Run ``charlm sample`` in this process, in the models' folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        return CliRunner().invoke(main, ["sample", *map(str, arguments)], **options)
    finally:
        os.chdir(before)


def output(folder: Path, *arguments: str | int, **options: Any) -> str:
    result = run(folder, *arguments, **options)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def objects(folder: Path, *arguments: str | int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output(folder, *arguments, "--json").splitlines()]


# ---- what is printed ----


def test_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = output(folder, "names.npz", "-n", 20, "--seed", 1)
    assert len(text.splitlines()) == 20
    assert re.fullmatch(r"([a-z]*\n){20}", text)
    assert output(folder, "names.npz", "-n", 20, "--seed", 1, "--threads", 1) == text
    monkeypatch.setattr("charlm.engine.threads.available_cores", lambda: 3)
    assert output(folder, "names.npz", "-n", 20, "--seed", 1, "--threads", 3) == text
    assert output(folder, "names.npz", "-n", 3, "--seed", 1) == "".join(text.splitlines(keepends=True)[:3])
    assert output(folder, "names.npz", "--seed", 1) == text.splitlines(keepends=True)[0]
    assert output(folder, "names.npz", "-n", 20, "--seed", 2) != text


def test_without_a_seed_two_runs_differ(folder: Path) -> None:
    assert output(folder, "names.npz", "-n", 20) != output(folder, "names.npz", "-n", 20)


def test_a_file_is_printed_with_its_prompt_and_a_line_end(folder: Path) -> None:
    text = output(folder, "book.npz", "--prompt", "abé", "--max-length", 50, "--seed", 3)
    assert text.startswith("abé")
    assert text.endswith("\n")
    assert 53 <= len(text) <= 54
    assert len(output(folder, "book.npz", "--seed", 1, "--top-k", 2, "--top-p", 0.9, "--temperature", 0.5)) >= 500
    two = output(folder, "book.npz", "-n", 2, "--seed", 3, "--prompt", "abé", "--max-length", 50)
    assert two.startswith(text + "\nabé")


def test_paragraphs_are_apart_by_an_empty_line(folder: Path) -> None:
    samples = objects(folder, "poem.npz", "-n", 4, "--seed", 5)
    assert output(folder, "poem.npz", "-n", 4, "--seed", 5) == "\n\n".join(one["text"] for one in samples) + "\n"


def test_words(folder: Path) -> None:
    text = output(folder, "words.npz", "-n", 30, "--seed", 1, "--prompt", "the  cat")
    assert all(re.fullmatch(r"the cat( (the|cat|saw|a|dog|,|\.))*", line) for line in text.splitlines())
    assert any(len(line) > 7 for line in text.splitlines())
    first = text.splitlines()[0]
    assert output(folder, "words.npz", "--seed", 1, "--prompt", "the cat") == first + "\n"


def test_bytes_come_as_they_are(folder: Path) -> None:
    prompt = folder / "prompt.bin"
    prompt.write_bytes(b"\x00\xff\r\n")
    arguments = ("bytes.npz", "--seed", 1, "--max-length", 400, "--prompt-file", str(prompt))
    data = run(folder, *arguments).stdout_bytes
    assert data.startswith(b"\x00\xff\r\n")
    assert len(data) == 404
    (one,) = objects(folder, *arguments)
    assert one["text"].encode("latin-1") == data
    assert run(folder, "bytes.npz", "--seed", 1, "--prompt", "é", "--max-length", 1).stdout_bytes[:2] == b"\xc3\xa9"
    refused = run(folder, "bytes.npz", "-n", 2)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "use --json" in refused.stderr
    assert len(objects(folder, "bytes.npz", "-n", 2)) == 2


def test_log_prob_is_what_the_model_gives_the_whole_line(folder: Path) -> None:
    model = write_tiny_model(folder / "again.npz", sharpness=6, biases={"<eos>": 1.5})
    vocabulary = vocabulary_of("abcdefghijklmnopqrstuvwxyz")
    lines = output(folder, "again.npz", "-n", 30, "--seed", 1, "--prompt", "q", "--log-prob", "--top-k", 9).splitlines()
    for line in lines:
        log_prob, text = line.split("\t")
        targets = np.append(vocabulary.ids(list(text)), np.int32(EOS_ID)).reshape(-1, 1).astype(np.int32)
        inputs = np.concatenate([np.full((1, 1), vocabulary.start_id, np.int32), targets[:-1]])
        expected = model.log_probs(inputs, targets, model.zero_state(1)).sum()
        assert float(log_prob) == pytest.approx(expected, abs=1e-4)
    assert len({len(line) for line in lines}) > 2


def test_log_prob_of_texts_of_several_lines_is_one_line_each(folder: Path) -> None:
    arguments = ("poem.npz", "-n", 20, "--seed", 1)
    lines = output(folder, *arguments, "--log-prob").splitlines()
    samples = objects(folder, *arguments)
    assert any("\n" in one["text"] for one in samples)
    assert any("\\" in one["text"] for one in samples)
    for line, one in zip(lines, samples, strict=True):
        log_prob, text = line.split("\t")
        assert text == one["text"].replace("\\", "\\\\").replace("\n", "\\n")
        assert float(log_prob) == pytest.approx(one["log_prob_nats"], abs=1e-6)


def test_json_keeps_letters_as_they_are(folder: Path) -> None:
    assert '"text": "é' in output(folder, "book.npz", "--prompt", "é", "--json", "--max-length", 3)


def test_json(folder: Path) -> None:
    samples = objects(folder, "names.npz", "-n", 3, "--seed", 4, "--prompt", "ab", "--max-length", 4)
    for index, one in enumerate(samples):
        assert one["index"] == index
        assert one["tokens"] == list(one["text"])
        assert (one["prompt_tokens"], one["seed"], one["refused"]) == (2, 4, None)
        assert one["ended"] == ("length" if len(one["tokens"]) == 6 else "eos")
        assert one["log_prob_nats"] <= one["prompt_log_prob_nats"] < 0
    (one,) = objects(folder, "names.npz", "--greedy")
    assert one["seed"] is None
    (one,) = objects(folder, "names.npz")
    seed = one["seed"]
    assert isinstance(seed, int)
    assert objects(folder, "names.npz", "--seed", seed) == [one]


def test_beam_prints_the_likeliest_first_and_none_likelier_is_drawn(folder: Path) -> None:
    arguments = ("names.npz", "--log-prob", "-n")
    best = [line.split("\t") for line in output(folder, *arguments, 5, "--beam", 60).splitlines()]
    log_probs = [float(log_prob) for log_prob, _ in best]
    assert len({text for _, text in best}) == 5
    assert log_probs == sorted(log_probs, reverse=True)
    drawn = [line.split("\t") for line in output(folder, *arguments, 200, "--seed", 1).splitlines()]
    assert not [text for log_prob, text in drawn if float(log_prob) > log_probs[0] + 1e-5]


def test_novel_says_how_many_were_refused(folder: Path) -> None:
    lines = output(folder, "names.npz", "-n", 50, "--seed", 1).splitlines()
    corpus = folder / "corpus.txt"
    corpus.write_text("".join(f"{line}\n" for line in lines[:10] if line) + "zzz\n")
    result = run(folder, "names.npz", "-n", 50, "--seed", 1, "--novel", "corpus.txt")
    assert result.exit_code == 0
    assert not set(result.stdout.splitlines()) & set(corpus.read_text().splitlines())
    refused = re.fullmatch(r"(\d+) refused: in corpus\.txt\n", result.stderr)
    assert refused
    assert int(refused[1]) >= sum(line in corpus.read_text().splitlines() for line in lines) > 3
    samples = run(folder, "names.npz", "-n", 50, "--seed", 1, "--novel", "corpus.txt", "--json").stdout.splitlines()
    assert sum(json.loads(line)["refused"] for line in samples) == int(refused[1])


# ---- what goes wrong ----


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["names.npz", "--greedy", "--temperature", "1"], 2, "--greedy and --temperature exclude each other"),
        (["names.npz", "--beam", "2", "--top-k", "3"], 2, "--beam and --top-k exclude each other"),
        (["names.npz", "--beam", "2", "-n", "3"], 2, "use --beam 3"),
        (["names.npz", "--top-k", "9" * 21], 2, "is not in the range"),
        (["names.npz", "--max-length", "9" * 21], 2, "is not in the range"),
        (["names.npz", "--beam", "9" * 21], 2, "is not in the range"),
        (["names.npz", "--temperature", "0"], 2, "--greedy"),
        (["names.npz", "--top-p", "1.5"], 2, "at most 1"),
        (["names.npz", "--top-k", "0"], 2, "--top-k"),
        (["names.npz", "-n", "none"], 2, "not a valid integer"),
        (["names.npz", "--seed", "-1"], 2, "--seed"),
        (["names.npz", "--threads", "0"], 2, "--threads"),
        (["names.npz", "--on-unknown", "ask"], 2, "--on-unknown"),
        (["names.npz", "--prompt", "a", "--prompt-file", "b"], 2, "--prompt and --prompt-file"),
        (["book.npz", "--novel", "text.txt"], 2, "whole files"),
        ([], 2, "MODEL"),
        (["none.npz"], 1, "none.npz: no such file; make one with `charlm train`"),
        (["text.txt"], 1, "text.txt: not a charlm model but a text"),
        (["."], 1, "is a folder"),
        (["names.npz", "--prompt", "aÉ"], 1, "'É' (U+00C9, LATIN CAPITAL LETTER E WITH ACUTE) at line 1, column 2"),
        (["names.npz", "--prompt", "👩‍🚀"], 1, "'👩' (U+1F469, WOMAN) at line 1, column 1"),
        (["names.npz", "--prompt", "a\u0301"], 1, "'á' (U+00E1, LATIN SMALL LETTER A WITH ACUTE)"),
        (["words.npz", "--prompt", "the bird"], 1, "the word 'bird' at line 1, column 5"),
        (["names.npz", "--prompt", "a\nb"], 1, "more than one line"),
        (["names.npz", "--prompt-file", "none.txt"], 1, "none.txt: no such file"),
        (["names.npz", "--prompt-file", "names.npz"], 1, "names.npz: "),
        (["names.npz", "--novel", "none.txt"], 1, "none.txt: no such file"),
    ],
)
def test_errors_are_one_line(folder: Path, arguments: list[str], code: int, message: str) -> None:
    (folder / "text.txt").write_text("some text\n")
    result = run(folder, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    *_, last = result.stderr.splitlines()
    assert last.startswith("charlm: error: ")
    assert message in last
    assert "Traceback" not in result.stderr


def test_unknown_symbols_of_a_prompt_can_pass(folder: Path) -> None:
    assert output(folder, "names.npz", "--prompt", "a😀b", "--on-unknown", "skip", "--seed", 1).startswith("ab")
    assert output(folder, "names.npz", "--prompt", "a😀b", "--on-unknown", "unk", "--seed", 1).startswith("a😀b")


def test_a_prompt_from_standard_input(folder: Path) -> None:
    assert output(folder, "names.npz", "--prompt-file", "-", "--seed", 1, input="abc\n").startswith("abc")


def test_help_names_the_options_and_gives_examples(folder: Path) -> None:
    text = output(folder, "--help")
    for option in ("--num-samples", "--prompt-file", "--top-p", "--beam", "--novel", "--allow-unk", "--raw"):
        assert option in text
    assert "  charlm sample names.npz -n 10  " in text
    assert "\b" not in text
    assert __version__ not in text


# ---- real processes ----


def command(folder: Path, *arguments: str | int) -> list[str]:
    model, *rest = map(str, arguments)
    return [sys.executable, "-m", "charlm", "sample", str(folder / model), *rest]


def test_a_closed_pipe_ends_quietly(folder: Path) -> None:
    output(folder, "book.npz", "--seed", 1, "--max-length", 2)  # compiles, here and not there
    process = subprocess.Popen(
        command(folder, "book.npz", "--max-length", 10_000_000),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stderr:
        assert len(process.stdout.read(1)) == 1  # long before all is drawn
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0


def on_terminal(arguments: list[str]) -> str:
    """What a process shows on a terminal."""
    code, shown = process_on_terminal(arguments)
    assert code == 0
    return shown


def test_a_terminal_sees_no_escape_sequence_but_the_seed(folder: Path) -> None:
    shown = on_terminal(command(folder, "control.npz", "-n", 20))
    assert "\x1b" not in shown
    assert "\x9b" not in shown
    assert "\\x1b" in shown
    seed = re.match(r"--seed (\d+) repeats this\n", shown)
    assert seed
    assert "\x1b" in output(folder, "control.npz", "-n", 20, "--seed", seed[1])  # a pipe gets the text itself
    assert "\x1b" in on_terminal(command(folder, "control.npz", "-n", 20, "--seed", seed[1], "--raw"))


def test_a_terminal_sees_bytes_as_utf8_where_they_are(folder: Path) -> None:
    arguments = command(folder, "bytes.npz", "--seed", 1, "--max-length", 200, "--prompt", "é€")
    shown = on_terminal(arguments)
    assert shown.startswith("é€")
    assert "\x1b" not in shown
    assert "\\x1b" in shown
    assert shown.endswith("\n")
