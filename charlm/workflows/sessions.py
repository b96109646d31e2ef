"""Who trained a model: of each call of ``charlm train``, the command, the version, the machine and where it began."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from charlm import __version__
from charlm.engine import host

Session = dict[str, Any]


def sessions(saved: Mapping[str, Any] | None, command: str, step: int, threads: int) -> list[Session]:
    """The sessions of a training, the one that begins now the last.

    A session like the one before, as of a training that is stopped and resumed each night, is not listed again.

    Args:
        saved: the header of the state that is resumed, if any; an older one may not tell of its sessions.
        command: as a shell has it.
        step: at which this session begins.
        threads: that it uses.
    """
    before: list[Session] = []
    if saved is not None:
        known = saved.get("sessions")
        if isinstance(known, list) and known and all(isinstance(one, dict) for one in known):
            before = known
        else:
            before = [{"from_step": 0, "command": saved.get("command"), "charlm": saved.get("charlm"), "host": None}]
    now = {"from_step": step, "command": command, "charlm": __version__, "host": host.facts(threads)}
    if before and before[-1] | {"from_step": step} == now:
        return before
    return [*before, now]
