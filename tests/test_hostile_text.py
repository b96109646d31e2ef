"""The quick part of the harness of hostile texts: some of its texts through every command, and the harness itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import click
import pytest

from charlm.text import readers
from tests.faults.hostile_text import Runner, echoed, lines_of
from tests.faults.text_cases import Case, every_case

CHOSEN = """
plain turkish, plain escapes, plain separators, plain CESU-8, plain NUL, plain mixed ends, plain only ends,
plain soup 1, labelled label: escapes, labelled label <unk>, labelled many tabs, pairs two tabs,
pairs target: separators, columns too many columns, columns tag: escapes
""".replace("\n", " ").strip()
CASES = {f"{case.kind} {case.name}": case for case in every_case(seed=1, soups=2)}


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("name", CHOSEN.split(", "))
def test_every_command_gives_its_results_or_one_line(harness: Runner, name: str) -> None:
    harness.faults.clear()
    harness.run(CASES[name])
    assert harness.faults == []


def test_names_are_given_once() -> None:
    assert len(CASES) == len(every_case(seed=1, soups=2))
    assert every_case(seed=1, soups=9) == every_case(seed=1, soups=9) != every_case(seed=2, soups=9)


def found_in(harness: Runner, case: Case, command: str, *options: str, **checks: Any) -> str:
    """What the harness says of a command on a text."""
    harness.faults.clear()
    (harness.folder / "planted.txt").write_bytes(case.data)
    model = [harness.model("char")] * (command == "score")
    harness.check(case, command, *model, harness.folder / "planted.txt", *options, **checks)
    return "\n".join(harness.faults)


def test_the_harness_finds_a_traceback(harness: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(name: str, blocks: Iterable[bytes], any_level: bool) -> Iterator[str]:
        for data in blocks:
            yield data.decode("utf-8")

    monkeypatch.setattr(readers, "_decode_utf8", careless)
    assert "internal error, UnicodeDecodeError" in found_in(harness, CASES["plain CESU-8"], "score")


def test_the_harness_finds_lines_that_were_dropped(harness: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["plain mixed ends"]
    wanted = echoed(lines_of(case), 3)
    assert found_in(harness, case, "score", lines=wanted) == ""
    monkeypatch.setattr(readers, "_unix_lines", lambda text: text.replace("\n\n", "\n"))
    assert "4 rows for 8 lines" in found_in(harness, case, "score", lines=wanted)


def test_the_harness_finds_what_a_terminal_would_obey(harness: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.cli.main.on_one_line", lambda text: text)
    monkeypatch.setattr("charlm.cli.main.say", lambda text: click.echo(text, err=True))
    assert "in its messages" in found_in(harness, Case("a", b""), "tokenize", "--vocab", "\x9b31m")


def test_the_harness_finds_a_message_that_is_none(harness: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charlm.cli.main.describe", lambda error: ("bad", 1))
    assert "not one clear line" in found_in(harness, CASES["plain CESU-8"], "tokenize")
