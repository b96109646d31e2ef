"""A charlm command that tells how much memory it took: python peak_process.py REPORT ARGUMENT...

When it ends, its peak and what it holds at the end are in the file REPORT, JSON. Imports nothing that charlm does not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def memory() -> dict[str, float]:
    """Megabytes of this process: its peak so far, and what it holds now, ``rss``; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {"peak": _peak(), "rss": 0.0}
    kilobytes = {
        name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value
    }
    return {"peak": kilobytes["VmHWM"] / 1024, "rss": kilobytes["VmRSS"] / 1024}


def _peak() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    report, sys.argv[1:] = Path(sys.argv[1]), sys.argv[2:]
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from charlm.cli.main import main as charlm

    try:
        charlm(prog_name="charlm")
    finally:
        report.write_text(json.dumps(memory()))


if __name__ == "__main__":
    main()
