"""Runs charlm and notes which kernels are compiled, and how long each takes without those that it calls.

    python tests/benchmarks/compilations.py OUTPUT.json CHARLM'S ARGUMENTS...

For startup.py, which sets PYTHONPATH and an empty cache. OUTPUT is a list of [name, seconds].
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from numba.core import event


class Recorder(event.Listener):
    """Compilations nest: a kernel's begins, then those of the kernels that it calls."""

    def __init__(self) -> None:
        self.found: list[tuple[str, float]] = []
        self._open: dict[int, list[tuple[float, float]]] = {}  # thread -> (begin, seconds of inner ones) of each level

    def on_start(self, what: Any) -> None:
        self._open.setdefault(threading.get_ident(), []).append((time.perf_counter(), 0.0))

    def on_end(self, what: Any) -> None:
        levels = self._open[threading.get_ident()]
        begin, inner = levels.pop()
        spent = time.perf_counter() - begin
        if levels:
            levels[-1] = levels[-1][0], levels[-1][1] + spent
        function = what.data["dispatcher"].py_func
        self.found.append((f"{function.__module__.removeprefix('charlm.')}.{function.__name__}", spent - inner))


def main() -> None:
    output = sys.argv.pop(1)
    recorder = Recorder()
    event.register("numba:compile", recorder)
    from charlm.cli.main import main as charlm

    try:
        charlm()
    finally:
        Path(output).write_text(json.dumps(recorder.found))


if __name__ == "__main__":
    main()
