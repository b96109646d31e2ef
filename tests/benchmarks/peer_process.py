"""Runs peer.py with the peer's Python."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

HOW_TO = """The peer lives in an environment of its own; make one, outside the project:
    python -m venv PEER
    PEER/bin/pip install numpy torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
and add: --peer-python PEER/bin/python"""


class Peer:
    """peer.py in a process that waits for jobs; it works only while `ask` waits for the answer."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("peer.py")
        # -B: a benchmark leaves no bytecode of another Python in the tree.
        self._process = subprocess.Popen(
            [python, "-B", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, job: str, **arguments: Any) -> dict[str, Any]:
        """Send one job; its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"job": job, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemExit(f"the peer's process ended at the job {job!r}; its own message is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
