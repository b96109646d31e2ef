import gzip
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from charlm import checkpoint
from charlm.cli.main import main
from charlm.cli.options import text_options
from charlm.cli.tokenize import tokenize
from charlm.text import token_file
from charlm.text.corpus import load
from charlm.text.tokenizer import Tokenizer
from charlm.text.vocabulary import EOS, UNK
from charlm.workflows.tokenize import TextOptions


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["tokenize", *map(str, arguments)], input=stdin)


def output(*arguments: object, stdin: bytes | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def failure(*arguments: object, code: int = 1, stdin: bytes | None = None) -> str:
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("charlm: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_bytes(b"Anna\nBo\n\nAn na\n")
    return path


def test_counts(names: Path) -> None:
    assert output(names).splitlines() == [
        "sequences    3  --sequence line",
        "tokens      11  --level char; 14 with <eos>",
        "types        6  distinct tokens",
        "vocabulary   8  with <unk> and <eos>",
        "unknown      0  0.00% of the tokens",
        "characters  11",
        "words        4",
        "blank lines  1  skipped",
    ]


def test_columns_are_aligned_for_large_numbers() -> None:
    lines = output("-", stdin=b"abc\n" * 5000).splitlines()
    assert lines[0] == "sequences    5,000  --sequence line"
    assert lines[1] == "tokens      15,000  --level char; 20,000 with <eos>"
    assert lines[2] == "types            3  distinct tokens"


def test_json(names: Path) -> None:
    told = json.loads(output(names, "--json", "--level", "word", "--min-count", 1, "--vocab-size", 4, "--lowercase"))
    assert told == {
        "files": [str(names)],
        "sha256": load([str(names)], Tokenizer())[0].sha256,
        **{"level": "word", "sequence": "line", "normalize": "nfc", "lowercase": True},
        **{"sequences": 3, "tokens": 4, "types": 4, "unknowns": 2, "characters": 11, "words": 4, "blank_lines": 1},
        **{"tokens_with_eos": 7, "unknown_rate": 0.5, "vocabulary": 4},
    }


def test_inputs(names: Path) -> None:
    packed = names.with_suffix(".gz")
    packed.write_bytes(gzip.compress(b"Zoe\n"))
    told = json.loads(output(names, "-", packed, "--json", stdin=b"\xef\xbb\xbfEve\r\n"))
    assert (told["sequences"], told["tokens"]) == (5, 17)
    assert told["files"] == [str(names), "standard input", str(packed)]


def test_show(names: Path) -> None:
    assert output(names, "--show") == "A n n a\nB o\nA n ␣ n a\n"
    words = ["--level", "word", "--sequence", "paragraph", "--min-count", 1]
    assert output(names, "--show", *words) == "Anna ⏎ Bo\nAn na\n"
    assert output(names, "--show", "--min-count", 2) == "A n n a\n<unk> <unk>\nA n <unk> n a\n"
    assert output("-", "--show", "--level", "byte", stdin="é\n\t".encode()) == "Ã © ⏎ ⇥\n"


def test_show_makes_everything_visible() -> None:
    text = "a\u0301\u0300\u200d\u00a0␣x\u00ad"
    shown = output("-", "--show", "--normalize", "none", stdin=text.encode())
    assert shown == "a U+0301 U+0300 U+200D U+00A0 U+2423 x U+00AD\n"
    shown = output("-", "--show", "--level", "word", "--min-count", 1, stdin="हिन्दी किताब".encode())
    assert shown == "हिन्दी किताब\n"


def test_show_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.text.spool.BLOCK_TOKENS", 2)
    assert output("-", "--show", stdin=b"abc\nab\nabcd\n") == "a b c\na b\na b c d\n"


def test_words_seen_once_are_unknown_unless_told_otherwise(tmp_path: Path) -> None:
    """So that a model learns <unk>. The rule is that of ``charlm train``."""
    text = b"an an bo\n"
    assert output("-", "--show", "--level", "word", stdin=text) == "an an <unk>\n"
    assert output("-", "--show", "--level", "word", "--min-count", 1, stdin=text) == "an an bo\n"
    assert output("-", "--show", "--level", "char", stdin=text) == "a n ␣ a n ␣ b o\n"
    assert "b" in output("-", "--show", "--level", "byte", stdin=text)
    assert "lower --min-count" in failure("-", "--level", "word", stdin=b"an bo\n")
    # A vocabulary that is given is taken as it is.
    symbols, out = tmp_path / "symbols", tmp_path / "out"
    symbols.write_text("an\nbo\n")
    assert output("-", "--show", "--level", "word", "--vocab", symbols, stdin=text) == "an an bo\n"
    output("-", "-o", out, "--level", "word", "--min-count", 1, stdin=text)
    assert output(out, "--show") == output("-", "--show", "--vocab", out, stdin=text) == "an an bo\n"


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (TextOptions(), 1),
        (TextOptions(level="char"), 1),
        (TextOptions(level="byte"), 1),
        (TextOptions(level="word"), 2),
        (TextOptions(level="word", min_count=1), 1),
        (TextOptions(level="word", min_count=3), 3),
        (TextOptions(min_count=3), 3),
    ],
)
def test_least_count(options: TextOptions, count: int) -> None:
    assert options.least_count() == count


def test_token_file(names: Path, tmp_path: Path) -> None:
    out = tmp_path / "names.tokens"
    told = output(names, "-o", out, "--min-count", 2)
    assert token_file.is_token_file(str(out))
    assert output(out) == told
    assert output(out, "--show") == output(names, "--show", "--min-count", 2)
    again, _ = load([str(out)], Tokenizer())
    direct, _ = load([str(names)], Tokenizer(), min_count=2)
    assert again.tokens.tolist() == direct.tokens.tolist()
    assert "tokenized already; leave out --level, --min-count" in failure(
        out, "--level", "char", "--min-count", 2, code=2
    )
    assert "leave out --vocab" in failure(out, "--vocab", out, code=2)


def test_bad_input_writes_nothing(tmp_path: Path) -> None:
    bad, out = tmp_path / "bad.txt", tmp_path / "out"
    for data, message in ((b"", "empty"), (b"\n\n", "blank"), (b"ab\n\xff", "offset 3, line 2"), (b"a\0", "NUL")):
        bad.write_bytes(data)
        assert message in failure(bad, "-o", out)
        assert not out.exists()
    assert "no such file" in failure(tmp_path / "none", "-o", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.txt"]


def test_bad_output_is_found_before_the_work(names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.workflows.tokenize.load", lambda *_, **__: pytest.fail("the work was begun"))
    assert "there is no folder" in failure(names, "-o", tmp_path / "none" / "out")
    assert "is a folder" in failure(names, "-o", tmp_path)
    assert "is the text itself" in failure(names, "-o", names, code=2)
    assert "-o -: a token file cannot go to standard output; name a file" in failure(names, "-o", "-", code=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--level", "byte", "--lowercase"], "leave out --lowercase"),
        (["--level", "byte", "--normalize", "nfc"], "leave out --normalize"),
        (["--vocab", "x", "--min-count", "2"], "leave out --min-count and --vocab-size"),
        (["--show", "--json"], "--show and --json exclude each other"),
        (["--min-count", "0"], "--min-count"),
        (["--vocab-size", "2"], "--vocab-size"),
        (["--level", "letter"], "--level"),
    ],
)
def test_wrong_usage(names: Path, options: list[str], message: str) -> None:
    assert message in failure(names, *options, code=2)


def test_no_text() -> None:
    assert "TEXT" in failure(code=2)


def test_vocabulary_from_a_token_file(names: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    output(names, "-o", out, "--lowercase", "--level", "word", "--min-count", 1)
    assert output("-", "--vocab", out, "--show", stdin=b"AN Bo eve\n") == "an bo <unk>\n"
    told = json.loads(output("-", "--vocab", out, "--json", "--sequence", "file", stdin=b"AN Bo eve\n"))
    assert (told["level"], told["lowercase"], told["sequence"]) == ("word", True, "file")
    assert (told["vocabulary"], told["unknowns"], told["tokens"]) == (6, 2, 4)  # the newline is unknown too
    told = json.loads(output("-", "--vocab", out, "--json", "--level", "char", stdin=b"AN\n"))
    assert (told["level"], told["lowercase"]) == ("char", False)


def test_vocabulary_from_a_model(tmp_path: Path) -> None:
    model = tmp_path / "model.npz"
    header = {"vocabulary": [UNK, EOS, "b", "a"], "tokenizer": Tokenizer(lowercase=True).to_json()}
    checkpoint.save(model, header, {})
    assert output("-", "--vocab", model, "--show", stdin=b"ABC\n") == "a b <unk>\n"
    model.write_bytes(model.read_bytes()[:-30])
    assert "model.npz: " in failure("-", "--vocab", model, stdin=b"ABC\n")


def test_vocabulary_from_a_list(tmp_path: Path) -> None:
    symbols = tmp_path / "symbols"
    symbols.write_bytes(b"a\r\n \r\n<unk>\n\\n\nb")
    assert output("-", "--vocab", symbols, "--show", "--sequence", "file", stdin=b"a b\nc") == "a ␣ b ⏎ <unk>\n"
    assert json.loads(output("-", "--vocab", symbols, "--json", stdin=b"a b\nc"))["vocabulary"] == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nab\n", "symbols, line 2: 'ab' is not a token at --level char"),
        (b"a\n\nb\n", "symbols, line 2: '' is not a token"),
        (b"a\nb\na\n", "symbols, line 3: 'a' stands in line 1 already; leave out one"),
        (b"", "symbols: holds no symbols"),
        (b"<unk>\n<eos>\n", "symbols: holds no symbols"),
        (b"\xe9\n", "symbols: not UTF-8"),
    ],
)
def test_wrong_list(tmp_path: Path, names: Path, content: bytes, message: str) -> None:
    symbols = tmp_path / "symbols"
    symbols.write_bytes(content)
    assert message in failure(names, "--vocab", symbols)


def test_missing_vocabulary(names: Path, tmp_path: Path) -> None:
    assert "none.npz: no such file" in failure(names, "--vocab", tmp_path / "none.npz")
    assert "is a folder" in failure(names, "--vocab", tmp_path)


def test_help_has_examples() -> None:
    told = output("--help")
    assert "Examples:\n" in told
    assert "\n    charlm tokenize names.txt  " in told
    assert tokenize.name == "tokenize"


def test_help_starts_without_the_heavy_modules() -> None:
    code = "import sys, charlm.cli.tokenize; sys.exit(str({'numpy', 'numba', 'tqdm'} & set(sys.modules) or '') or 0)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_text_options_are_none_unless_given() -> None:
    @click.command()
    @text_options
    def command(**options: object) -> None:
        click.echo(json.dumps(options))

    names = ["level", "sequence", "min_count", "vocab_size", "lowercase", "normalize"]
    assert json.loads(CliRunner().invoke(command, []).stdout) == dict.fromkeys(names)
    arguments = ["--level", "word", "--sequence", "file", "--min-count", "2", "--vocab-size", "9", "--lowercase"]
    told = json.loads(CliRunner().invoke(command, [*arguments, "--normalize", "nfkc"]).stdout)
    assert told == dict(zip(names, ["word", "file", 2, 9, True, "nfkc"], strict=True))
