"""``charlm score`` as a user meets it: columns, streams, exit codes."""

from __future__ import annotations

import gzip
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from charlm.cli.main import main
from charlm.cli.output import json_ready, visible
from charlm.cli.score import _table
from charlm.text.tokenizer import Tokenizer
from charlm.workflows.model_files import LoadedModel
from charlm.workflows.score_results import Summary
from tests.stub_model import StubModel, vocabulary_of, write_tiny_model

ROOT = Path(__file__).parents[1]
Run = Callable[..., Result]

# <unk> <eos> a b, the next token after <unk>, <eos> (never an input), a, b, and first
TABLE = [
    [0.125, 0.125, 0.5, 0.25],
    [0.25, 0.25, 0.25, 0.25],
    [0.125, 0.5, 0.125, 0.25],
    [0.25, 0.25, 0.25, 0.25],
    [0.0625, 0.0625, 0.75, 0.125],
]
P_AB = 0.75 * 0.25 * 0.25
P_A_UNK = 0.75 * 0.125 * 0.125
P_EMPTY = 0.0625
KEYS = [
    "sentences", "tokens", "unknowns", "characters", "words", "log_prob_nats", "nats_per_token", "bits_per_token",
    "bits_per_character", "bits_per_word", "perplexity", "perplexity_excluding_unknowns",
]  # fmt: skip


@pytest.fixture
def stub_run(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``charlm score MODEL -`` on the table above."""

    def run(text: str | bytes, *options: str, tokenizer: Tokenizer | None = None, **header: Any) -> Result:
        model: Any = StubModel(np.array(TABLE))
        loaded = LoadedModel(model, vocabulary_of("ab"), tokenizer or Tokenizer(), header, "stub")
        monkeypatch.setattr("charlm.workflows.model_files.load_model", lambda path, threads: loaded)
        return runner.invoke(main, ["score", "model.npz", *options], input=text)

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "model.npz"
    write_tiny_model(path, "abcdefghijklmnopqrstuvwxyz ")
    return str(path)


def charlm(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "charlm", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False, **options)


# ---- what is printed, and where ----


def test_a_line_of_columns_for_each_line(stub_run: Run) -> None:
    result = stub_run("ab\n\na?")
    assert result.exit_code == 0
    assert result.stdout.split("\n") == [
        f"{math.log(P_AB):.6f}\t3\t0\tab",
        f"{math.log(P_EMPTY):.6f}\t1\t0\t",
        f"{math.log(P_A_UNK):.6f}\t3\t1\ta?",
        "",
    ]


@pytest.mark.parametrize(("base", "value"), [("e", math.e), ("2", 2), ("10", 10)])
def test_the_base_of_the_columns(stub_run: Run, base: str, value: float) -> None:
    plain, described = stub_run("ab\n", "--log-base", base), stub_run("ab\n", "--log-base", base, "--json")
    assert plain.stdout == f"{math.log(P_AB) / math.log(value):.6f}\t3\t0\tab\n"
    assert json.loads(described.stdout)["log_prob"] == pytest.approx(math.log(P_AB) / math.log(value))
    assert plain.stderr == stub_run("ab\n").stderr  # the summary has its units
    assert json.loads(described.stderr)["log_prob_nats"] == pytest.approx(math.log(P_AB))
    tokens = stub_run("a\n", "--log-base", base, "--per", "token").stdout
    assert tokens.split("\t")[3] == f"{math.log(0.75) / math.log(value):.6f}"


def test_a_line_of_columns_for_each_token(stub_run: Run) -> None:
    result = stub_run("a \n\t\\\n", "--per", "token", "--log-base", "2")
    assert result.stdout.split("\n") == [
        f"1\t1\ta\t{math.log2(0.75):.6f}\t0",
        "1\t2\t␣\t-3.000000\t1",
        "1\t3\t<eos>\t-3.000000\t0",
        "2\t1\t⇥\t-4.000000\t1",
        "2\t2\t\\\t-3.000000\t1",
        "2\t3\t<eos>\t-3.000000\t0",
        "",
    ]


def test_the_summary_for_people(stub_run: Run) -> None:
    result = stub_run("ab\n\na?\n", "--per", "corpus")
    nats = math.log(P_AB * P_EMPTY * P_A_UNK)
    known = math.log(P_AB * P_EMPTY * 0.75 * 0.125)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [
        ("sentences", "3", "1 of them empty"),
        ("tokens", "7", "4 without the ends of sentences"),
        ("unknowns", "1", "14.29% of the tokens"),
        ("characters", "7", "one for each line's end included"),
        ("words", "2", ""),
        ("log probability", f"{nats:.4f}", "nats"),
        ("cross entropy", f"{-nats / 7:.4f}", "nats per token"),
        ("", f"{-nats / 7 / math.log(2):.4f}", "bits per token"),
        ("", f"{-nats / 7 / math.log(2):.4f}", "bits per character; too low, as unknowns are not spelt out"),
        ("", f"{-nats / 2 / math.log(2):.4f}", "bits per word; too low, as unknowns are not spelt out"),
        ("perplexity", f"{math.exp(-nats / 7):.4f}", "per token, including unknowns"),
        ("", f"{math.exp(-known / 6):.4f}", "per token, excluding unknowns"),
    ]
    width = len(f"{nats:.4f}")
    assert result.stdout.splitlines() == [
        f"{name:<17}{number:>{width}}  {remark}".rstrip() for name, number, remark in rows
    ]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_summary_is_a_result_alone_and_a_message_otherwise(stub_run: Run, options: list[str]) -> None:
    alone = stub_run("ab\n", "--per", "corpus", *options)
    assert alone.stderr == ""
    for per in ("sentence", "token"):
        assert stub_run("ab\n", "--per", per, *options).stderr == alone.stdout


def test_json_lines_and_a_json_summary(stub_run: Run) -> None:
    result = stub_run('a"é\n\n', "--json")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"log_prob": pytest.approx(math.log(0.75 / 8 / 8 / 8)), "tokens": 4, "unknowns": 2, "text": 'a"é'},
        {"log_prob": pytest.approx(math.log(P_EMPTY)), "tokens": 1, "unknowns": 0, "text": ""},
    ]
    assert "é" in result.stdout
    tokens = stub_run("\t\n", "--json", "--per", "token").stdout.splitlines()
    assert [json.loads(line) for line in tokens] == [
        {"line": 1, "position": 1, "token": "\t", "log_prob": pytest.approx(math.log(1 / 16)), "unknown": True},
        {"line": 1, "position": 2, "token": "<eos>", "log_prob": pytest.approx(math.log(1 / 8)), "unknown": False},
    ]
    summary = json.loads(result.stderr)
    assert list(summary) == KEYS
    assert summary["perplexity"] == pytest.approx(math.exp(-summary["log_prob_nats"] / 5))


@pytest.mark.parametrize("text", ['"\\/', "\t\x01\x7f\x1f", "\u2028\xa0é漢😀", "%s%d%%", "a" * 50])
def test_json_is_as_the_json_module_writes_it(stub_run: Run, text: str) -> None:
    """But for what a terminal would obey, which is escaped; so a line is one to whoever splits it, too."""
    for options in ([], ["--per", "token"]):
        lines = stub_run(text + "\n", "--json", *options).stdout.splitlines()
        written = [json.dumps(json.loads(line), ensure_ascii=False) for line in lines]
        assert [visible(line, as_json=True) for line in written] == lines
        assert text.startswith(json.loads(lines[0]).get("text", text[0]))


def test_excluded_unknowns(stub_run: Run) -> None:
    result = stub_run("a?\n", "--exclude-unk")
    assert result.stdout == f"{math.log(0.75 / 8):.6f}\t2\t1\ta?\n"
    assert result.stderr == stub_run("a?\n").stderr
    assert stub_run("a?\n", "--exclude-unk", "--per", "token").stdout.splitlines()[1] == "1\t2\t?\tNA\t1"
    described = stub_run("a?\n", "--exclude-unk", "--per", "token", "--json").stdout.splitlines()[1]
    assert json.loads(described)["log_prob"] is None


def test_on_unknown(stub_run: Run) -> None:
    skipped = stub_run("?a?b\n", "--on-unknown", "skip")
    assert skipped.stdout == f"{math.log(P_AB):.6f}\t3\t2\t?a?b\n"
    assert "unknowns" in skipped.stderr
    assert "2  40.00% of the tokens, 2 of them skipped" in skipped.stderr
    refused = stub_run("ab\n?a\n", "--on-unknown", "error")
    assert (refused.exit_code, refused.stdout) == (1, f"{math.log(P_AB):.6f}\t3\t0\tab\n")
    assert refused.stderr.startswith("charlm: error: standard input: '?' (U+003F, QUESTION MARK) at line 2, column 1")
    assert refused.stderr.count("\n") == 1


def test_an_unlearnt_unknown_is_said_on_stderr_once(stub_run: Run) -> None:
    result = stub_run("?\n?\n", "--per", "corpus", corpus={"unknowns": 0})
    assert result.stderr.startswith("charlm: warning: the model's training text held no unknown token")
    assert result.stderr.count("warning") == 1


def test_numbers_that_json_does_not_have() -> None:
    summary = Summary(sentences=1, tokens=1)
    summary.log_prob.add(-1000.0)
    assert summary.perplexity == math.inf
    assert json_ready(summary.to_json())["perplexity"] is None
    assert "inf" in _table(summary)


@pytest.mark.parametrize("per", ["sentence", "token", "corpus"])
def test_what_is_no_number_is_an_error(stub_run: Run, monkeypatch: pytest.MonkeyPatch, per: str) -> None:
    monkeypatch.setitem(globals(), "TABLE", [*TABLE[:4], [0, 0, 1, 0]])
    result = stub_run("b\n", "--per", per)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("charlm: error: stub: gives no finite number (NaN or infinity), its weights are")
    assert result.stderr.count("\n") == 1


def test_a_certain_token_has_no_negative_zero(stub_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "TABLE", [*TABLE[:4], [0, 1e-9, 1 - 1e-9, 0]])
    assert stub_run("a\n", "--per", "token").stdout.startswith("1\t1\ta\t0.000000\t0\n")


# ---- inputs ----


def test_no_input_is_no_sentence(stub_run: Run) -> None:
    for per in ("sentence", "token"):
        assert stub_run("", "--per", per).stdout == ""
    result = stub_run("", "--per", "corpus", "--json")
    assert result.exit_code == 0
    assert list(json.loads(result.stdout).values()) == [0, 0, 0, 0, 0, 0.0, None, None, None, None, None, None]
    last = stub_run("", "--per", "corpus").stdout.splitlines()[-1]
    assert last.split() == ["-", "per", "token,", "excluding", "unknowns"]


@pytest.mark.parametrize("text", ["ab\r\n\r\nb\r\n", "ab\n\nb", "\ufeffab\n\nb\n"])
def test_line_ends_are_not_part_of_a_line(stub_run: Run, text: str) -> None:
    assert stub_run(text).stdout == stub_run("ab\n\nb\n").stdout


def test_lines_before_what_is_not_utf_8_are_scored(stub_run: Run) -> None:
    result = stub_run(b"ab\n\nb\na\nb\xe9\nab\n")
    assert result.exit_code == 1
    assert result.stdout == stub_run("ab\n\nb\na\n").stdout
    assert result.stderr.startswith("charlm: error: standard input: not UTF-8: byte 0xe9 at offset 9, line 5; ")
    assert result.stderr.count("\n") == 1
    nul = stub_run(b"ab\na\0b\n")
    assert (nul.exit_code, nul.stdout) == (1, stub_run("ab\n").stdout)
    assert "NUL" in nul.stderr


def test_a_model_of_bytes_gives_any_bytes_back(stub_run: Run) -> None:
    text = b"a\0\xff\r\n\n\x85\xe9 b"
    tokenizer = Tokenizer.from_options("byte")
    result = stub_run(text, tokenizer=tokenizer)
    lines = [row.split(b"\t")[3] for row in result.stdout_bytes.removesuffix(b"\n").split(b"\n")]
    assert lines == text.split(b"\n")
    rows = stub_run(b"\xe9", "--per", "token", tokenizer=tokenizer).stdout.splitlines()
    assert rows[0].split("\t")[2] == "é"
    described = stub_run(b"\xe9", "--json", tokenizer=tokenizer)
    assert json.loads(described.stdout)["text"] == "\xe9"
    summary = json.loads(stub_run(text, "--per", "corpus", "--json", tokenizer=tokenizer).stdout)
    assert (summary["sentences"], summary["characters"], summary["words"]) == (1, len(text) + 1, 3)


def test_a_packed_text_and_a_line_of_a_megabyte(runner: CliRunner, model: str, tmp_path: Path) -> None:
    path = tmp_path / "text.gz"
    long = "the quick brown fox " * 50_000
    path.write_bytes(gzip.compress(f"first\n{long}\nlast".encode()))
    result = runner.invoke(main, ["score", model, str(path)])
    rows = [row.split("\t") for row in result.stdout.splitlines()]
    assert [row[1:] for row in rows] == [["6", "0", "first"], ["1000001", "0", long], ["5", "0", "last"]]
    assert all(math.isfinite(float(row[0])) for row in rows)
    alone = runner.invoke(main, ["score", model], input="last\nfirst\n").stdout.splitlines()
    assert alone == ["\t".join(rows[2]), "\t".join(rows[0])]


def test_threads_change_nothing(runner: CliRunner, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.engine.threads.available_cores", lambda: 2)
    text = "".join(f"{'the quick fox '[: i % 14]}\n" for i in range(500))
    one, two = (runner.invoke(main, ["score", model, "-", "--threads", count], input=text) for count in "12")
    assert (one.exit_code, one.stdout, one.stderr) == (0, two.stdout, two.stderr)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{missing}"], 1, "missing.npz"),
        (["{model}", "{missing}"], 1, "no such file"),
        (["{model}", "--log-base", "3"], 2, "--log-base"),
        (["{model}", "--threads", "0"], 2, "--threads"),
        (["{model}", "--per", "line"], 2, "--per"),
        ([], 2, "MODEL"),
    ],
)
def test_faults_in_one_line(
    runner: CliRunner, model: str, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    filled = [argument.format(model=model, missing=tmp_path / "missing.npz") for argument in arguments]
    result = runner.invoke(main, ["score", *filled])
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr.splitlines()[-1]


# ---- in a pipeline ----


def test_a_pipe_that_closes_early_is_no_error(model: str) -> None:
    command = [sys.executable, "-m", "charlm", "score", model]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"a line\n")
        process.stdin.flush()
        assert process.stdout.readline().endswith(b"\t7\t0\ta line\n")  # at once, though more may come
        process.stdin.write(b"another\n")
        process.stdin.flush()
        assert process.stdout.readline().endswith(b"\tanother\n")
        process.stdout.close()
        process.stdin.write(b"third\n")
        process.stdin.close()
        messages = process.stderr.read().decode().splitlines()
    assert process.returncode == 0
    assert [line for line in messages if not line.startswith("compiling")] == []


def test_ranking_hypotheses(model: str) -> None:
    lines = [b"the apple and pair salad", b"a pear", b"", b"wreck a nice beach"]
    result = charlm("score", model, input=b"\n".join(lines))
    ranked = sorted(result.stdout.splitlines(), key=lambda row: -float(row.split(b"\t")[0]))
    assert ranked[0].split(b"\t")[3] == b""
    assert result.stderr.decode().splitlines()[-1].endswith("excluding unknowns")


def test_the_help_has_examples(runner: CliRunner) -> None:
    result = runner.invoke(main, ["score", "--help"])
    assert result.exit_code == 0
    assert "charlm score model.npz hyps.txt | sort -t$'\\t' -k1,1gr | head -1" in result.stdout
    assert all(key in result.stdout for key in KEYS)
