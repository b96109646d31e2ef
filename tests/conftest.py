"""What the tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from hypothesis import settings

from charlm.engine.threads import Team

# A laptop under load is slow, which is no failure. Where nobody looks at the output, every run is the same.
settings.register_profile("charlm", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("charlm")


# A shell has SIGINT ignored in what it puts in the background; the tests of Ctrl-C, and what they start, need it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def teams() -> Iterator[list[Team]]:
    """Teams of one to four threads, whose results must have the same bits."""
    made = [Team(threads) for threads in (1, 2, 3, 4)]
    yield made
    for team in made:
        team.close()


@pytest.fixture(autouse=True)
def compilation_unannounced(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a command tells must not depend on which tests ran before it, and so on which kernels there are already."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.name != "test_progress.py":
            patch.setattr("charlm.cli.progress.Announcement.begin", lambda announcement, name: None)
        yield


@pytest.fixture
def runner() -> CliRunner:
    """Runs a click command; its result keeps stdout and stderr apart."""
    return CliRunner()
