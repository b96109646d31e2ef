"""Big texts for `hostile_text`: each command in a process of its own, which tells its seconds and its peak."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.text_cases import SANE

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
BLOCK = 1 << 20
MB = 1_000_000
LIMIT_SECONDS = 900
LINE = b"anna bela carl "
SMALL = "--hidden-size 8 --num-layers 1 --embedding-size 8 --seed 1 --quiet"


def repeated(data: bytes, size: int) -> Iterable[bytes]:
    """``size`` bytes, about, of a repeated pattern, in blocks."""
    block = data * (BLOCK // len(data))
    for _ in range(size // len(block)):
        yield block
    yield data * (size % len(block) // len(data))


TEXTS: dict[str, Callable[[], Iterable[bytes]]] = {
    "line": lambda: repeated(LINE, 100 * MB),
    # What reads a sequence whole before it answers keeps all its steps: classifiers, taggers, transducers.
    "million": lambda: repeated(b"anna bela carl ", MB),
    "letters": lambda: repeated("анна бела ".encode(), 100 * MB),  # of two bytes
    "word": lambda: repeated(b"annabela", 100 * MB),
    "empty": lambda: [b"\n" * MB],
    "among": lambda: [b"anna\n", b"\n" * MB, b"bela\n"],
    "short": lambda: repeated(b"a\n", 20 * MB),
    "marks": lambda: [b"a", *repeated("\u0301\u0323".encode(), 2 * MB), b"\n"],
    "labelled": lambda: [b"x\tanna\n" * 5, b"y\tbela\n" * 5, b"x\t", *repeated(b"anna bela carl ", MB)],
    "columns": lambda: [b"anna\tA\nbela\tB\n\n" * 9, *repeated(b"anna\tA\n", MB)],
}
# A command, its text, and the most memory that it may take, MB.
COMMANDS = [
    ("tokenize line", 1200), ("tokenize line --level word", 600), ("tokenize line --level byte", 200),
    ("tokenize letters", 1500), ("tokenize word --level word", 800), ("tokenize marks", 500), ("tokenize empty", 300),
    ("tokenize among", 300), ("tokenize line --show", 1500),
    ("train line -o m.npz --time 2s", 1800), ("train line -o m.npz --time 2s --sequence file", 1500),
    ("train line -o m.npz --time 2s --level word", 1500), ("train line -o m.npz --time 2s --level byte", 800),
    ("train among -o m.npz --time 2s", 500), ("train marks -o m.npz --time 2s", 800),
    ("train labelled -o m.npz --task classify --time 2s --batch-size 1", 3000),
    ("train columns -o m.npz --task tag --time 2s", 3000),
    ("score char.npz line", 3000), ("score char.npz line --per corpus", 3000), ("score word.npz line", 3000),
    ("score byte.npz line --per corpus", 800), ("score char.npz letters", 3000),
    ("score char.npz line --per token", 3000), ("score label.npz line --label all", 3000),
    ("score char.npz empty", 300), ("score char.npz short", 300), ("score char.npz marks", 500),
    ("predict classify.npz million", 3000), ("predict classify.npz empty", 300), ("predict tag.npz columns", 3000),
    ("gradients char.npz line --steps 2", 1500), ("sample char.npz --prompt-file line --max-length 5", 3000),
]  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """How a command ended."""

    code: int
    seconds: float
    peak: float  # MB
    message: str


def run(folder: Path, command: str) -> Reading:
    """Run a command in a process of its own; its output is thrown away."""
    report, messages = folder / "report.json", folder / "messages"
    report.unlink(missing_ok=True)
    begin = time.perf_counter()
    with open(messages, "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(BENCHMARKS / "peak_process.py"), str(report), *command.split()],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=stderr, env={**os.environ, "TMPDIR": str(folder)},
        )  # fmt: skip
        try:
            code = process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
    seconds = time.perf_counter() - begin
    peak = json.loads(report.read_text())["peak"] if report.exists() else float("nan")
    lines = messages.read_text(errors="backslashreplace").splitlines() or [""]
    return Reading(code, seconds, peak, lines[-1])


def tell_big(folder: Path, only: str, share: float) -> int:
    """Run the commands that match; how many failed or took too much.

    Args:
        share: of the size of the text ``line``, 100 MB.
    """
    _write_models(folder)
    faults = 0
    print(f"{'command':<64}{'exit':>5}{'seconds':>9}{'peak MB':>9}{'at most':>9}")
    for command, most in COMMANDS:
        if not re.search(only, command):
            continue
        for word in command.split():
            if word in TEXTS and not (folder / word).exists():
                with open(folder / word, "wb") as file:
                    file.writelines(repeated(LINE, int(share * 100 * MB)) if word == "line" else TEXTS[word]())
        found = run(folder, command + (f" {SMALL}" if command.startswith("train") else ""))
        is_good = found.code in (0, 1) and found.peak <= most
        faults += not is_good
        verdict = "" if is_good else "  NO"
        print(f"{command:<64}{found.code:>5}{found.seconds:>9.1f}{found.peak:>9.0f}{most:>9}{verdict}", flush=True)
        if found.code:
            print(f"    {found.message[:200]}")
        (folder / "m.npz").unlink(missing_ok=True)
        (folder / "m.resume.npz").unlink(missing_ok=True)
    return faults


def _write_models(folder: Path) -> None:
    lines = SANE * 3
    (folder / "sane.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "sane.tsv").write_text("".join(f"{'xy'[i % 2]}\t{line}\n" for i, line in enumerate(lines)))
    (folder / "sane.conll").write_text("".join(f"{line.split()[0]}\t{'AB'[i % 2]}\n\n" for i, line in enumerate(lines)))
    for command in (
        "sane.txt -o char.npz", "sane.txt -o word.npz --level word", "sane.txt -o byte.npz --level byte",
        "sane.tsv -o label.npz --condition label", "sane.tsv -o classify.npz --task classify",
        "sane.conll -o tag.npz --task tag",
    ):  # fmt: skip
        found = run(folder, f"train {command} {SMALL} --epochs 1")
        assert found.code == 0, found.message
