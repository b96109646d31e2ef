"""Hostile texts through every command: each gives its results or one clear line, and nothing reaches a terminal raw.

    python -m tests.faults.hostile_text [--seed N] [--soups N] [--only REGEX] [--big [REGEX]] [--share F] [--folder DIR]

The small texts (see text_cases.py; soups are random mixtures of them) go through tokenize at each level, train of each
task, sample with them as a prompt, score in each way, predict and gradients, in this process. What must hold is said in
`Runner.faults`. The big ones (--big: a line of 100 MB, a million empty lines, a million marks on one letter ...) go
through processes of their own, whose seconds and peak of resident memory are told.

Exit code 1 if anything did not hold. All files are made in --folder (default: the system's folder for temporary
files; the big ones need 3 GB) and removed at the end.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner, Result

from charlm.cli.main import main as charlm
from charlm.cli.output import OBEYED, visible
from tests.faults.big_texts import tell_big
from tests.faults.machine import machine
from tests.faults.text_cases import SANE, Case, every_case

LONGEST_MESSAGE = 1000  # characters of one line on stderr
TINY = ("--hidden-size", 4, "--num-layers", 1, "--embedding-size", 4, "--epochs", 1, "--threads", 1, "--seed", 1)
TASKS = {"labelled": "classify", "pairs": "transduce", "columns": "tag"}
LEVELS = ("char", "word", "byte")


@dataclass
class Runner:
    """Runs commands on cases in a folder, where tiny models of every kind are.

    Attributes:
        faults: what did not hold.
        codes: of each kind of command, how often it ended with each exit code.
    """

    folder: Path
    faults: list[str] = field(default_factory=list)
    codes: dict[str, Counter[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lines = [*SANE * 3, "<unk> a b"]
        self._write("sane.txt", lines)
        self._write("sane.tsv", [f"{'xyz'[i % 3]}\t{line}" for i, line in enumerate(lines)])
        self._write("sane.pairs", [f"{line}\t{line[::-1]}" for line in lines])
        self._write("sane.conll", [f"{word}\t{'AB'[i % 2]}\n" for i, word in enumerate(" ".join(lines).split())])
        for level in LEVELS:
            self._train(f"{level}.npz", "sane.txt", "--level", level)
        self._train("line.npz", "sane.txt", "--level", "byte", "--sequence", "line")
        self._train("paragraph.npz", "sane.txt", "--sequence", "paragraph")
        self._train("label.npz", "sane.tsv", "--condition", "label")
        self._train("classify.npz", "sane.tsv", "--task", "classify")
        self._train("transduce.npz", "sane.pairs", "--task", "transduce")
        self._train("tag.npz", "sane.conll", "--task", "tag")

    def _write(self, name: str, lines: Sequence[str]) -> None:
        (self.folder / name).write_text("".join(f"{line}\n" for line in lines))

    def _train(self, model: str, text: str, *options: object) -> None:
        result = self.invoke("train", self.folder / text, "-o", self.folder / model, *options, *TINY, "--quiet")
        assert result.exit_code == 0, result.stderr

    @staticmethod
    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(charlm, [str(argument) for argument in arguments])

    def model(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    # ---- what must hold ----

    def check(self, case: Case, *arguments: object, lines: Callable[[str], str] | None = None) -> Result:
        """Run a command, and note what does not hold.

        Args:
            lines: given stdout, says what is wrong with it; it is asked only if the command ends well.
        """
        result = self.invoke(*arguments)
        self.codes.setdefault(_kind(arguments), Counter())[result.exit_code] += 1
        wrong = self._wrong(result)
        if not wrong and result.exit_code == 0 and lines is not None:
            wrong = lines(result.stdout_bytes.decode("utf-8", "surrogateescape"))
        if wrong:
            shown = " ".join(str(argument).replace(f"{self.folder}/", "")[:60] for argument in arguments)
            self.faults.append(f"{case.kind} {case.name!r}: charlm {shown}: {wrong}")
        return result

    @staticmethod
    def _wrong(result: Result) -> str:
        """What is wrong with the end of a command, in words; nothing if all is well."""
        stderr = result.stderr
        if result.exit_code not in (0, 1, 2):
            return f"exit code {result.exit_code}"
        if "internal error" in stderr or "Traceback" in stderr:
            return stderr.strip()[-300:]
        if found := OBEYED.search(stderr):
            return f"{found[0]!a} in its messages"
        if long := [len(line) for line in stderr.splitlines() if len(line) > LONGEST_MESSAGE]:
            return f"a message of {max(long)} characters"
        errors = [line for line in stderr.splitlines() if line.startswith("charlm: error: ")]
        if len(errors) != (result.exit_code != 0):
            return f"exit code {result.exit_code} and {len(errors)} errors"
        if errors and not (stderr.splitlines()[-1] == errors[0] and re.search("; |leave out", errors[0])):
            return f"not one clear line at the end: {errors[0]}"
        return ""

    # ---- the commands ----

    def run(self, case: Case) -> None:
        """A case through all commands that may be given such a text."""
        path = self.folder / f"case{case.suffix}"
        path.write_bytes(case.data)
        if case.kind == "plain":
            self._plain(case, path)
        else:
            self._task(case, path)
        self._predict(case, path)

    def _plain(self, case: Case, path: Path) -> None:
        for level in LEVELS:
            self.check(case, "tokenize", path, "--level", level, "--show")
            self.check(case, "tokenize", path, "--level", level, "--json", "-o", self.folder / "case.tokens")
        self.check(case, "tokenize", path, "--sequence", "paragraph", "--lowercase", "--normalize", "nfkc")
        self.check(case, "tokenize", path, "--vocab", path)
        for options in (("char",), ("char", "--sequence", "paragraph"), ("word", "--sequence", "file"), ("byte",)):
            self._train_and_use(case, path, "--level", *options)
        given = lines_of(case)
        for name in ("char", "word", "line", "paragraph"):
            as_bytes = name == "line"
            expected = case.data.decode("latin-1").split("\n") if as_bytes and given is not None else given
            self.check(case, "score", self.model(name), path, lines=echoed(expected, 3, as_bytes=as_bytes))
        self.check(case, "score", self.model("label"), path, "--label", "all", lines=echoed(given, 5))
        self.check(case, "score", self.model("label"), path, "--label", "x", "--on-unknown", "skip")
        for options in (
            ("--per", "token"),
            ("--per", "corpus"),
            ("--on-unknown", "error"),
            ("--per", "token", "--json"),
        ):
            for name in LEVELS:
                self.check(case, "score", self.model(name), path, *options)
        for name in LEVELS:
            self.check(case, "gradients", self.model(name), path, "--steps", 1, "--positions", 2, "--threads", 1)
        self._prompt(case, path)

    def _prompt(self, case: Case, path: Path) -> None:
        prompt = os.fsdecode(case.data[:9999].partition(b"\0")[0])
        for name in ("char", "word", "byte", "paragraph"):
            options = ("--seed", 1, "--max-length", 3, "--threads", 1, "--on-unknown", "unk")
            self.check(case, "sample", self.model(name), "--prompt", prompt, *options)
            self.check(case, "sample", self.model(name), "--prompt-file", path, "--json", *options[:-2])
        self.check(case, "sample", self.model("char"), "--novel", path, "--max-length", 3, "-n", 2)
        self.check(case, "sample", self.model("label"), "--label", prompt)

    def _task(self, case: Case, path: Path) -> None:
        self._train_and_use(case, path, "--task", TASKS[case.kind])
        self.check(case, "predict", self.model(TASKS[case.kind]), path, "--evaluate")
        self.check(case, "predict", self.model(TASKS[case.kind]), path, "--evaluate", "--json")
        if case.kind == "labelled":
            self._train_and_use(case, path, "--condition", "label")

    def _predict(self, case: Case, path: Path) -> None:
        given = lines_of(case)
        self.check(case, "predict", self.model("classify"), path, lines=echoed(given, 2))
        if max(map(len, given or [""])) < 4000:  # a target is up to twice as long as its source
            self.check(case, "predict", self.model("transduce"), path, lines=_counted(given))
            self.check(case, "predict", self.model("transduce"), path, "--json", "--n-best", 2, lines=_counted(given))
        self.check(case, "predict", self.model("tag"), path, lines=_counted(given))
        self.check(case, "predict", self.model("tag"), path, "--json")

    def _train_and_use(self, case: Case, path: Path, *options: object) -> None:
        """Train; what was made can be used, and where nothing could be made nothing is left."""
        made = self.model("made")
        made.unlink(missing_ok=True)
        made.with_suffix(".resume.npz").unlink(missing_ok=True)
        result = self.check(case, "train", path, "-o", made, *options, *TINY)
        if made.exists() != (result.exit_code == 0):
            self.faults.append(f"{case.kind} {case.name!r}: train {options}: exit {result.exit_code}, and the model")
        if result.exit_code:
            return
        if "--task" in options:
            self.check(case, "predict", made, path, "--evaluate")
            return
        label = ("--label", "x") if "--condition" in options else ()
        self.check(case, "sample", made, "--seed", 1, "--max-length", 5, *label)
        self.check(case, "score", made, path, "--per", "corpus", *label)


def _kind(arguments: Sequence[object]) -> str:
    """What a run is counted as: the command, and what it was asked for in words."""
    return " ".join([str(arguments[0]), *(str(a) for a in arguments[1:] if re.fullmatch("--[a-z-]+", str(a)))][:3])


def lines_of(case: Case) -> list[str] | None:
    """The lines of a text as a reader should give them, and one of nothing after the last; None if it is none."""
    if case.suffix == ".gz":
        return None
    try:
        text = case.data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _without_rest(lines: list[str]) -> list[str]:
    return lines if lines[-1] else lines[:-1]


def echoed(given: list[str] | None, tabs: int, *, as_bytes: bool = False) -> Callable[[str], str]:
    """Whether stdout has a row for each line, with the line itself after so many tabs."""

    def wrong(stdout: str) -> str:
        if given is None:
            return ""
        if as_bytes:
            stdout = stdout.encode("utf-8", "surrogateescape").decode("latin-1")
        texts = [row.split("\t", tabs)[-1] for row in stdout.split("\n")[:-1]]
        expected = _without_rest(given)
        return "" if texts == expected else f"{len(texts)} rows for {len(expected)} lines, or not those lines"

    return wrong


def _counted(given: list[str] | None) -> Callable[[str], str]:
    """Whether stdout has as many rows as there are lines."""

    def wrong(stdout: str) -> str:
        rows, expected = stdout.count("\n"), len(_without_rest(given or [""]))
        return "" if given is None or rows == expected else f"{rows} rows for {expected} lines"

    return wrong


def tell_small(folder: Path, seed: int, soups: int, only: str) -> int:
    """All small texts through all commands; how many faults were found."""
    runner = Runner(folder)
    cases = [case for case in every_case(seed, soups) if re.search(only, f"{case.kind} {case.name}")]
    begin, slowest = time.perf_counter(), (0.0, "")
    for case in cases:
        before = time.perf_counter()
        runner.run(case)
        slowest = max(slowest, (time.perf_counter() - before, f"{case.kind} {case.name}"))
    seconds = time.perf_counter() - begin
    print(f"{len(cases)} texts, seed {seed}, {seconds:.0f} s; the slowest {slowest[1]}, {slowest[0]:.1f} s")
    print(f"{'command':<34}{'runs':>6}{'exit 0':>8}{'exit 1':>8}{'exit 2':>8}")
    for kind, codes in sorted(runner.codes.items()):
        print(f"{kind:<34}{codes.total():>6}" + "".join(f"{codes[code]:>8}" for code in (0, 1, 2)))
    for fault in runner.faults:
        print(f"FAULT {visible(fault)}")
    print(f"{sum(codes.total() for codes in runner.codes.values())} runs, {len(runner.faults)} faults")
    return len(runner.faults)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the soups (default: 1)")
    parser.add_argument("--soups", type=int, default=40, metavar="N", help="how many (default: 40)")
    parser.add_argument("--only", default="", metavar="REGEX", help="the small texts whose kind and name match")
    parser.add_argument(
        "--big", nargs="?", const="", metavar="REGEX", help="the big texts instead, whose command matches"
    )
    parser.add_argument("--share", type=float, default=1, metavar="F", help="of the 100 MB of the text `line`")
    parser.add_argument("--folder", metavar="DIR", help="where to make the texts")
    options = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.big is None:
            faults = tell_small(Path(folder), options.seed, options.soups, options.only)
        else:
            faults = tell_big(Path(folder), options.big, options.share)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
