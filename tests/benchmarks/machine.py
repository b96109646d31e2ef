"""The machine: what it is, and how much of it other processes take while something is measured.

Importing this module first makes ``charlm`` the one of this tree, installed or not.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

import llvmlite
import numba
import numpy as np
from peer_process import Peer

sys.path.insert(0, str(Path(__file__).parents[2]))

import charlm
from charlm.engine.jit import FEATURES, VECTOR_BYTES
from charlm.engine.threads import available_cores


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


def _busy_seconds() -> float:
    """Processor seconds of everything since the start, time stolen by a hypervisor included; NaN if unknown."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return float("nan")
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


class Others:
    """How much of the machine others have taken since this was made."""

    def __init__(self) -> None:
        self._wall, self._busy, self._own = time.perf_counter(), _busy_seconds(), time.process_time()

    def share(self, peer_seconds: float = 0.0) -> float:
        """The share of all cores, 0 to 1, that neither this process nor the peer (``peer_seconds``) used; or NaN."""
        wall = time.perf_counter() - self._wall
        own = time.process_time() - self._own + peer_seconds
        return max(0.0, _busy_seconds() - self._busy - own) / (wall * (os.cpu_count() or 1))


def wait_for_quiet(limit: float, deadline: float) -> None:
    """Return when others take less than ``limit`` of the machine, or at ``deadline`` (perf_counter)."""
    while time.perf_counter() < deadline:
        others = Others()
        time.sleep(0.3)
        if not others.share() > limit:
            return
