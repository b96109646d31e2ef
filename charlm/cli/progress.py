"""What the commands tell on stderr while a user waits."""

from __future__ import annotations

import contextlib
from functools import lru_cache

import click


@lru_cache(maxsize=1)  # once a process
def announce_compilation() -> None:
    """From now on, say so on stderr when the first kernel is compiled, which takes a while and looks like a hang."""
    from charlm.engine.jit import on_compilation

    told: list[str] = []

    def tell(name: str) -> None:
        if not told:
            told.append(name)
            with contextlib.suppress(OSError):  # nobody listens: no reason to stop
                click.echo("compiling kernels for this processor: once, about 15 s ...", err=True)

    on_compilation(tell)
