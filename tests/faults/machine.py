"""The head of a harness's report, as the benchmarks have it."""

from __future__ import annotations

import sys
from pathlib import Path


def machine() -> str:
    """The machine, and the versions of what charlm stands on."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # its scripts import each other by name
    from machine import describe

    return str(describe(None))
