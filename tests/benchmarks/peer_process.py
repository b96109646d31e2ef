"""Runs peer.py with the peer's Python, and describes the machine.

Importing this module first makes ``charlm`` the one of this tree, installed or not.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import llvmlite
import numba
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import charlm
from charlm.engine.jit import FEATURES, VECTOR_BYTES
from charlm.engine.threads import available_cores

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


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe(peer: Peer | None) -> str:
    """The machine and the versions, for the head of a report."""
    wanted = ("avx", "avx2", "fma", "avx512f", "avx512bf16", "amx-tile", "neon")
    features = " ".join(name for name in wanted if name in FEATURES)
    load = f", load {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else ""
    lines = [
        f"machine   {processor()}, {available_cores()} cores, {features}; vectors of {8 * VECTOR_BYTES} bits{load}",
        f"charlm    {charlm.__version__}, Python {platform.python_version()}, numba {numba.__version__}, "
        f"llvmlite {llvmlite.__version__}, numpy {np.__version__}",
    ]
    if peer is not None:
        versions = peer.ask("versions")
        lines.append(f"peer      PyTorch {versions['torch']}, Python {versions['python']}, numpy {versions['numpy']}")
    return "\n".join(lines)
