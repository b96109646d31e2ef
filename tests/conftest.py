"""What the tests share."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner
from hypothesis import settings

# A laptop under load is slow, which is no failure. Where nobody looks at the output, every run is the same.
settings.register_profile("charlm", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("charlm")


@pytest.fixture
def runner() -> CliRunner:
    """Runs a click command; its result keeps stdout and stderr apart."""
    return CliRunner()
