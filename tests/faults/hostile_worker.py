"""Runs charlm's commands in this process and says how each ended: what was printed, how long it took, how much memory.

As a script: a line of JSON on standard input names a command, a line of JSON on standard output answers it. A file that
kills the process kills no more than this.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LIMIT_SECONDS, LIMIT_MB = 5.0, 500.0
SHOWN_BYTES = 1 << 20  # of what a command prints, to be looked at
ERROR = "charlm: error: "
# Errors that tell of the text instead: its labels, tags and what it was; and of a training that diverges at any rate.
ALSO_CLEAR = re.compile(
    "--label|is unknown to the model|has none of its tags|not the one this training began with|"
    "begin (anew )?with (a lower --lr|other weights)"
)
NO_NUMBER = re.compile(r"(?<![A-Za-z])(?:nan|inf|infinity)(?![A-Za-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: the exit code; None if it raised what `main` should have handled.
        out, err: the beginning of what it printed.
        seconds: of the processor, all threads together: others may use the machine too.
        megabytes: by which its peak exceeded what the process held before.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    megabytes: float


def _memory(name: str) -> float:
    """Megabytes, from the line of this name in the process's status; 0 where the system has none."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def _forget_peak() -> None:
    with contextlib.suppress(OSError):  # the peak is then that of the process so far, which errs on the safe side
        Path("/proc/self/clear_refs").write_text("5")


def run(arguments: Sequence[str]) -> Outcome:
    """Run a command as a shell would, its output to a file or a pipe."""
    from charlm.cli.main import main

    before = sys.stdout, sys.stderr, sys.stdin
    code: int | None
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull) as nothing:
        streams = [os.fdopen(os.dup(stream.fileno()), "w", encoding="utf-8") for stream in (out, err)]
        sys.stdout, sys.stderr, sys.stdin = *streams, nothing
        _forget_peak()
        held, begin = _memory("VmRSS"), time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                main(list(arguments))
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException as error:
            code = None
            print(f"raised {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            seconds, megabytes = time.process_time() - begin, _memory("VmHWM") - held
            for stream in streams:
                stream.close()
            sys.stdout, sys.stderr, sys.stdin = before
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(SHOWN_BYTES).decode("utf-8", "replace"))
    return Outcome(code, texts[0], texts[1], seconds, megabytes)


def fault_of(outcome: Outcome, file: str) -> str | None:
    """What is wrong with an outcome; None if a user has nothing to complain of.

    Args:
        file: the name of the hostile file, which an error with exit code 1 must mention.
    """
    lines = outcome.err.splitlines()
    errors = [line for line in lines if line.startswith(ERROR)]
    if outcome.code not in (0, 1, 2):
        return f"ended with {outcome.code}"
    if "internal error" in outcome.err or "Traceback" in outcome.err or "Warning" in outcome.err:
        return "an internal error"
    if not all(line.isprintable() for line in outcome.err.split("\n")):
        return "a control character in a message"
    if len(errors) != (outcome.code != 0) or (errors and lines[-1] != errors[0]):
        return f"{len(errors)} error lines with exit code {outcome.code}"
    if errors and len(errors[0]) > 4000:
        return "a message of more than 4,000 characters"
    if outcome.code == 1 and file not in errors[0] and not ALSO_CLEAR.search(errors[0]):
        return "an error that does not name the file"
    if outcome.code == 0 and NO_NUMBER.search(outcome.out):
        return "printed what is no number"
    if outcome.code == 0 and ('"log_prob": null' in outcome.out or '"log_prob_nats": null' in outcome.out):
        return "printed a log probability that is no number"
    if outcome.seconds > LIMIT_SECONDS:
        return f"took {outcome.seconds:.1f} s"
    if outcome.megabytes > LIMIT_MB:
        return f"took {outcome.megabytes:.0f} MB"
    return None


def _serve(folder: str) -> None:
    """Answer requests until there are no more; commands run in this folder."""
    from charlm.cli.main import main  # noqa: F401 -- while relative paths lead here

    os.chdir(folder)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whoever prints by accident does not break the protocol
    for line in sys.stdin:
        answers.write(json.dumps(asdict(run(json.loads(line)))) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve(sys.argv[1])
