"""What reaches a terminal: nothing that it would obey, unless asked; and what does not come from one goes as it is."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from charlm.cli.main import main
from charlm.cli.output import OBEYED, Output, quoted, visible
from tests.faults.text_cases import SANE
from tests.stub_model import write_tiny_model
from tests.terminal import ROOT, run_on_terminal

TITLE, COLOUR, OVERRIDE = "\x1b]0;owned\x07", "\x9b31m", "\u202eabc\u2028"
HOSTILE = TITLE + COLOUR + OVERRIDE
SEEN = r"\x1b]0;owned\x07\x9b31m\u202eabc\u2028"
TINY = "--hidden-size 4 --num-layers 1 --embedding-size 4 --epochs 1 --threads 1 --seed 1".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with hostile labels and tags, in files of hostile names, and models of them."""
    folder = tmp_path_factory.mktemp(f"terminal{TITLE}")
    lines = [*SANE * 3, HOSTILE, HOSTILE]
    (folder / "a.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "a.tsv").write_text("".join(f"{('x', HOSTILE)[i % 2]}\t{line}\n" for i, line in enumerate(lines)))
    (folder / "a.pairs").write_text("".join(f"{line}\t{HOSTILE}\n" for line in lines))
    (folder / "a.conll").write_text(
        "".join(f"{line.split()[0]}\t{('O', f'B-{HOSTILE}')[i % 2]}\n\n" for i, line in enumerate(lines))
    )
    for name, text, *options in (
        ("lm", "a.txt"), ("byte", "a.txt", "--level", "byte", "--sequence", "line"),
        ("label", "a.tsv", "--condition", "label"), ("classify", "a.tsv", "--task", "classify"),
        ("tag", "a.conll", "--task", "tag"), ("transduce", "a.pairs", "--task", "transduce"),
    ):  # fmt: skip
        arguments = ["train", folder / text, "-o", folder / f"{name}.npz", *options, *TINY, "--quiet"]
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.stderr
    write_tiny_model(folder / "draws.npz", "ab\x1b\x9b\u202e", biases={"\x1b": 3, "\x9b": 3, "\u202e": 3, "<eos>": -9})
    return folder


@pytest.mark.parametrize("word", ["a", "a b", "it's", "Zürich", "caf\udce9.txt", "a\nb", "\x1b[31m'\\", "\u2028"])
def test_a_word_of_a_suggested_command_is_what_a_shell_makes_of_it(word: str) -> None:
    shown = quoted(word)
    assert shown.isprintable()
    if shutil.which("bash"):
        result = subprocess.run(["bash", "-c", f"printf %s {shown}"], capture_output=True, check=True)
        assert os.fsdecode(result.stdout) == word


def test_what_is_obeyed_has_a_visible_form() -> None:
    assert visible("a\x1b[31m\tb\n\x7f\x9b\0é\u0301\r") == "a\\x1b[31m\tb\n\\x7f\\x9b\\x00é\u0301\\x0d"
    assert (
        visible("\u2027\u2028\u202e\u2066\u2069\u200f\ufeff\udc80")
        == "\u2027\\u2028\\u202e\\u2066\\u2069\u200f\ufeff\\udc80"
    )
    assert visible(HOSTILE) == SEEN
    text = "".join(map(chr, (*range(0x3000), 0xDFFF, 0xD800, 0xE000, 0x1F600)))
    assert json.loads(visible(json.dumps(text, ensure_ascii=False), as_json=True)) == text
    assert not OBEYED.search(visible(text))


def shown_by(arguments: Sequence[Any], code: int = 0) -> str:
    """What a terminal shows of a command, without the bars and the dimmed letters that charlm itself makes."""
    found, shown = run_on_terminal(*arguments)
    assert found == code, shown
    return re.sub("\x1b\\[(2m|0m|A|K)|\r", "", shown)


def placed(folder: Path, words: str) -> list[Any]:
    """A command's words, files' names with their folder."""
    return [folder / word if "." in word else word for word in words.split()]


@pytest.mark.parametrize(
    "words",
    [
        "score lm.npz a.txt", "score lm.npz a.txt --json", "score lm.npz a.txt --per token",
        "score lm.npz a.txt --per token --json", "score byte.npz a.txt", "score label.npz a.tsv --label all",
        "score label.npz a.tsv --label all --json", "predict classify.npz a.txt", "predict classify.npz a.txt --json",
        "predict classify.npz a.tsv --evaluate", "predict tag.npz a.conll", "predict tag.npz a.conll --json",
        "predict tag.npz a.conll --evaluate", "predict transduce.npz a.txt --json", "tokenize a.txt --show",
        "tokenize a.txt --json", "gradients lm.npz a.txt --steps 2", "train a.txt -o made.npz",
        "train a.tsv -o made.npz --task classify", "train a.tsv -o made.npz --condition label",
        "sample draws.npz --seed 1 --max-length 50", "sample draws.npz --log-prob -n 20 --seed 1",
    ],
)  # fmt: skip
def test_no_command_shows_what_a_terminal_would_obey(folder: Path, words: str) -> None:
    shown = shown_by([*placed(folder, words), *(TINY if words.startswith("train") else [])])
    found = OBEYED.search(shown)
    assert not found, shown[max(0, found.start() - 50) : found.end() + 50]
    assert re.search(r"\\x1b|\\u001b|U\+001B|\\x9b", shown)


def test_errors_are_harmless_too(folder: Path) -> None:
    shown = shown_by(["tokenize", folder / f"{HOSTILE}.txt"], code=1)
    assert shown == f"charlm: error: {visible(str(folder))}/{SEEN}.txt: no such file\n"
    shown = shown_by(["score", folder / "label.npz", folder / "a.txt", "--label", HOSTILE + "z"], code=1)
    assert not OBEYED.search(shown)


def test_a_pipe_gets_the_text_itself(folder: Path) -> None:
    result = CliRunner().invoke(main, ["score", str(folder / "lm.npz"), str(folder / "a.txt")])
    assert result.stdout_bytes.decode().count(f"\t{HOSTILE}\n") == 2
    result = CliRunner().invoke(main, ["predict", str(folder / "classify.npz"), str(folder / "a.txt")])
    assert result.stdout_bytes.decode().count(f"\t{HOSTILE}\n") == 2
    result = CliRunner().invoke(main, ["sample", str(folder / "draws.npz"), "--seed", "1", "--max-length", "50"])
    assert "\x1b" in result.stdout


@pytest.mark.parametrize(
    "words", ["score lm.npz a.txt", "predict classify.npz a.txt", "sample draws.npz --max-length 50 --seed 1"]
)
def test_raw(folder: Path, words: str) -> None:
    arguments = placed(folder, words)
    _, shown = run_on_terminal(*arguments)
    assert "\x1b" not in shown
    assert "\\x1b" in shown
    _, shown = run_on_terminal(*arguments, "--raw")
    assert "\x1b" in shown


def test_a_terminal_gets_its_own_encoding(folder: Path) -> None:
    (folder / "é.txt").write_text("é€\n")
    _, shown = run_on_terminal("score", folder / "lm.npz", folder / "é.txt", "--threads", 1, encoding="ascii")
    assert "\t\\xe9\\u20ac\n" in shown


# ---- streams, in processes of their own ----


CLOSING = """import os, sys
for descriptor in "{}": os.close(int(descriptor))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"""


def process(folder: Path, *arguments: Any, closed: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A process in ``folder`` of which descriptors may be closed, as in "0" or "12"."""
    command = [sys.executable, "-c", CLOSING.format(closed), "-m", "charlm", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        command, cwd=folder, check=False, capture_output=True, stdin=subprocess.DEVNULL, env=environment
    )


@pytest.mark.parametrize(
    "locale", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_results_are_utf8_whatever_the_locale(folder: Path, locale: dict[str, str]) -> None:
    (folder / "plain.txt").write_text("naïve €\n")
    result = process(folder, "tokenize", "plain.txt", "--show", **locale)
    assert (result.returncode, result.stdout) == (0, "n a ï v e ␣ €\n".encode())
    assert process(folder, "score", "--help", **locale).returncode == 0


def test_closed_streams(folder: Path) -> None:
    result = process(folder, "tokenize", "-", closed="0")
    assert (result.returncode, result.stderr) == (
        1,
        b"charlm: error: standard input is closed; name a file instead of -\n",
    )
    result = process(folder, "tokenize", "a.txt", closed="1")
    assert result.returncode == 1
    assert result.stderr.startswith(b"charlm: error: standard output is closed, so the results would be lost; ")
    result = process(folder, "tokenize", "a.txt", closed="2")
    assert (result.returncode, result.stdout.count(b"\n")) == (0, 7)


def test_a_training_without_any_stream(folder: Path) -> None:
    """What is written to the descriptor of a closed stream must not end in a file that was opened after."""
    result = process(folder, "train", "a.txt", "-o", "alone.npz", *TINY, "--log", "log.jsonl", closed="012")
    assert result.returncode == 0
    assert (folder / "alone.npz").read_bytes().startswith(b"PK")
    assert all(json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())


# ---- the mechanism ----


def test_output_of_bytes_on_a_terminal_waits_for_whole_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Terminal(buffer, encoding="utf-8"))
    output = Output(as_bytes=True)
    for byte in "€\x1b".encode() + b"\xff" + "é".encode()[:1]:
        output.write(chr(byte))
    output.finish()
    assert buffer.getvalue().decode() == "€\\x1b\\xff\\xc3"
