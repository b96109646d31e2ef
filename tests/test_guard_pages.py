"""No kernel that works in whole vectors reads or writes beyond its arrays, whatever their sizes."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="no mprotect")
def test_arrays_that_end_at_a_page_which_may_not_be_read() -> None:
    """In a process of its own, which a stray read would end."""
    found = subprocess.run([sys.executable, "-m", "tests.guard_pages"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
