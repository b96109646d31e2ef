"""What README.md shows is what there is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from charlm.cli.main import COMMANDS
from tests.readme import README, reference, shell_blocks, written_reference

ROOT = README.parent


def test_the_reference_is_what_help_prints() -> None:
    assert written_reference() == reference(), "run: python -m tests.readme"


def test_every_command_and_option_is_in_it() -> None:
    text = written_reference()
    for name in COMMANDS:
        assert f"### charlm {name}" in text


def test_the_first_two_blocks_set_up() -> None:
    first, second = shell_blocks()[:2]
    assert "pip install" in first
    assert "charlm train corpora/dinosaurs.txt" in first
    assert "charlm sample" in first
    assert "pip install" in second
    assert "pytest" in second


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout, with a `charlm` to call, whose trainings end after an epoch if QUICK is set."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "corpora", folder / "corpora")
    programs = folder / "bin"
    programs.mkdir()
    program = programs / "charlm"
    shorten = '[ "$1" = train ] && [ "$QUICK" ] && set -- "$@" --epochs 1\n'
    program.write_text(f'#!/bin/sh\n{shorten}PYTHONPATH="{ROOT}" exec "{sys.executable}" -m charlm "$@"\n')
    program.chmod(0o755)
    return folder


def test_the_commands_run(folder: Path) -> None:
    """All of them but the installations, one after another in one folder, as a reader would.

    The first model is trained to its end, as its names are judged. The others' outputs are not: one epoch will do.
    """
    environment = os.environ | {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    outputs: list[str] = []
    for block in shell_blocks():
        steps = [step for step in block.strip().split(" && ") if "pip install" not in step and "pytest" not in step]
        if not steps:
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", " && ".join(steps)], cwd=folder, capture_output=True, text=True,
            env=environment | ({"QUICK": "1"} if outputs else {}), timeout=250,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        outputs.append(done.stdout)
    names = outputs[0].splitlines()
    assert len(names) == 10
    assert all(name.isalpha() and name.islower() for name in names)
