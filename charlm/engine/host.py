"""What the bits of a run may depend on besides its inputs: the processor, the versions, the threads.

On one machine a run repeats exactly, with any number of threads. Elsewhere another order of sums, another exp of the C
library's or a fused multiplication may differ in the last bit; so a model says where it was made.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding

from charlm.engine.jit import FEATURES, VECTOR_BYTES, config
from charlm.engine.threads import available_cores

VECTOR_FEATURES = ("sse4", "avx", "fma", "f16c", "amx", "neon", "sve", "fullfp16")  # what their names begin with


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, UnicodeDecodeError):
        pass
    return platform.machine()


def c_library() -> str | None:
    """The C library's name and version; None where the system does not tell."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):
        return None


def facts(threads: int) -> dict[str, Any]:
    """What JSON can hold of this machine and these versions.

    Args:
        threads: how many are used.

    Returns:
        system, libc, machine (x86_64, arm64); processor, its name, and cpu, the compiler's name of it; features, those
        for vectors that kernels are compiled for, and vector_bits; cores that the process may use, threads; and the
        versions of python, numpy, numba, llvmlite.
    """
    return {
        "system": platform.system(),
        "libc": c_library(),
        "machine": platform.machine(),
        "processor": processor(),
        "cpu": config.CPU_NAME or binding.get_host_cpu_name(),
        "features": sorted(name for name in FEATURES if name.startswith(VECTOR_FEATURES)),
        "vector_bits": 8 * VECTOR_BYTES,
        "cores": available_cores(),
        "threads": threads,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
    }
