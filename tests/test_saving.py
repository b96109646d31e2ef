"""What a training has on disk when it is killed between any two writes, or when the disk refuses some of them."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from charlm import checkpoint
from charlm.cli.main import main
from charlm.training.language_task import LanguageTask
from charlm.workflows.kept_models import Kept, step_path
from charlm.workflows.saving import Saver
from charlm.workflows.train_plan import TRAINING_STATE
from charlm.workflows.training_log import TrainingLog
from tests.faults.kills import course, without_times

SIZES = ["--hidden-size", "4", "--batch-size", "4", "--bptt", "8", "--cell", "rnn", "--threads", "1"]
OPTIONS = [*SIZES, "--epochs", "4", "--schedule", "constant", "--patience", "99", "--keep", "2", "--log", "log.jsonl"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("abcd\nbacd\nabba\ncadd\n" * 8)
    return tmp_path


def train(*more: str) -> Result:
    return CliRunner().invoke(main, ["train", "text.txt", "-o", "m.npz", "--quiet", *more])


def trained(*more: str) -> Result:
    result = train(*more)
    assert result.exit_code == 0, result.stderr
    return result


def names() -> list[str]:
    return sorted(os.listdir())


def steps() -> list[int]:
    return [int(name[7:16]) for name in names() if re.fullmatch(r"m\.step-\d{9}\.npz", name)]


def state() -> checkpoint.Checkpoint:
    return checkpoint.load("m.resume.npz", kind=TRAINING_STATE)


def contents() -> dict[str, Any]:
    """All files, times and commands left out; every array as bytes."""
    found: dict[str, Any] = {}
    for name in names():
        if name.endswith(".npz"):
            one = state() if ".resume." in name else checkpoint.load(name)
            arrays = {path: array.tobytes() for path, array in one.arrays.items()}
            found[name] = without_times(one.header), arrays
        else:
            lines = Path(name).read_text().splitlines()
            found[name] = course([json.loads(line) for line in lines]) if name == "log.jsonl" else lines
    return found


# ---- killed between any two writes ----


class Killed(BaseException):
    """Nothing catches it."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], list[str]]]:
    """Die before the n-th renaming or removal of a file, and touch none afterwards."""
    replace, unlink = os.replace, os.unlink

    trained(*OPTIONS, "--epochs", "1")  # writes the kernels that it compiles, which is not to be counted
    for name in names():
        if name != "text.txt":
            unlink(name)

    def arm(number: int) -> list[str]:
        done: list[str] = []

        def guard(call: Callable[..., None], what: str) -> Callable[..., None]:
            def guarded(*arguments: Any, **options: Any) -> None:
                if len(done) == number:
                    done.append("killed")
                    raise Killed
                if "killed" not in done:
                    done.append(f"{what} {os.path.basename(arguments[-1])}")
                    call(*arguments, **options)

            return guarded

        monkeypatch.setattr(os, "replace", guard(replace, "write"))
        monkeypatch.setattr(os, "unlink", guard(unlink, "remove"))
        return done

    yield arm
    monkeypatch.undo()


@pytest.mark.parametrize("displaced", [False, True], ids=["fresh", "in place of a finished one"])
def test_killed_between_any_two_writes(
    displaced: bool, folder: Path, kill_at: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare() -> None:
        for name in names():
            if name != "text.txt":
                os.unlink(name)
        if displaced:
            trained(*SIZES, "--epochs", "1", "--seed", "9")

    options = [*OPTIONS, "--epochs", "2", "--keep", "1"]
    prepare()
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", os.unlink)
        done = kill_at(10**9)
        trained(*options)
    expected = contents()
    assert steps() == state().header["kept"]["steps"]
    assert len(steps()) == 1
    moments = [number for number, what in enumerate(done) if ".charlm" not in what]  # those are checks and locks
    for number in (0, *moments, len(done) - 1):
        monkeypatch.undo()
        monkeypatch.chdir(folder)
        prepare()
        reached = kill_at(number)
        with pytest.raises(Killed):
            train(*options)
        monkeypatch.undo()
        monkeypatch.chdir(folder)
        for name in names():
            if name.endswith(".npz"):
                checkpoint.load(name, kind=TRAINING_STATE if ".resume." in name else "model")
        is_begun = Path("m.resume.npz").exists() and state().header["training"]["seed"] != 9
        again = trained(*(["--resume", "--log", "log.jsonl"] if is_begun else options))
        assert contents() == expected, (number, reached, again.stderr)


def test_the_order_of_writes(kill_at: Callable[[int], list[str]]) -> None:
    done = kill_at(10**9)
    trained(*OPTIONS)
    written = [re.sub(r"m\.step-0*", "step ", one) for one in done if ".charlm" not in one]
    interval = state().header["training"]["valid_interval"]
    model, here = ["write m.npz"], "write m.resume.npz"
    for number in (1, 2, 3, 4):
        wanted = [*model, here, f"write step {number * interval}.npz"]
        wanted += [f"remove step {(number - 2) * interval}.npz"] if number > 2 else []
        assert written[: len(wanted)] == wanted
        written = written[len(wanted) :]
    assert written == [here]


def test_between_validations_the_state_is_written_now_and_then(
    folder: Path, kill_at: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_anew(number: int) -> list[str]:
        monkeypatch.undo()
        monkeypatch.chdir(folder)
        for name in names():
            if name != "text.txt":
                os.unlink(name)
        monkeypatch.setattr("charlm.workflows.saving.STATE_SECONDS", 0)
        return kill_at(number)

    trained(*OPTIONS)
    expected = contents()
    here = "write m.resume.npz"
    done = begin_anew(10**9)
    trained(*OPTIONS)
    # After two in a row, and a model: which number that is depends on how Python removes what locks and checks leave.
    number = next(i for i in range(len(done)) if done[i - 2 : i] == [here, here] and "write m.npz" in done[:i])
    done = begin_anew(number)
    with pytest.raises(Killed):
        train(*OPTIONS)
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert done[-3:] == [here, here, "killed"]
    trained("--resume", "--log", "log.jsonl")
    assert contents() == expected


# ---- --keep ----


def test_keep_none_is_the_default_and_more_can_be_kept_on_resuming() -> None:
    trained(*SIZES, "--epochs", "2", "--schedule", "constant")
    assert steps() == []
    interval = state().header["training"]["valid_interval"]
    trained("--resume", "--epochs", "4", "--keep", "3")
    assert steps() == [3 * interval, 4 * interval]
    trained("--resume", "--epochs", "6")  # remembered
    assert steps() == [4 * interval, 5 * interval, 6 * interval]
    trained("--resume", "--epochs", "6", "--keep", "1")
    assert steps() == [6 * interval]
    kept = checkpoint.load(f"m.step-{6 * interval:09}.npz")
    now = state()
    assert len(kept.header["history"]) == 6
    assert all(np.array_equal(array, now.arrays[f"parameters/{path}"]) for path, array in kept.arrays.items())
    trained("--resume", "--epochs", "7", "--keep", "0")
    assert steps() == []


def test_only_what_this_training_wrote_is_removed() -> None:
    Path("m.step-000000001.npz").write_bytes(b"someone's")
    Path("m.step-1.npz").write_bytes(b"someone's")
    result = trained(*OPTIONS)
    assert "charlm: m.step-000000001.npz: of an earlier training, which --keep does not remove\n" in result.stderr
    assert Path("m.step-000000001.npz").read_bytes() == b"someone's"
    assert len(steps()) == 3
    before = steps()
    trained(*SIZES, "--epochs", "1", "--schedule", "constant", "--keep", "1", "--seed", "3")
    assert set(before) - set(steps()) == set()


def test_what_a_state_calls_a_kept_model_is_removed_only_if_it_is_one() -> None:
    """The state may be a stranger's, and the file a user's."""
    trained(*OPTIONS)
    before = steps()
    theirs = Path(step_path("m.npz", before[0]))
    theirs.write_bytes(b"someone's")
    trained(*OPTIONS, "--keep", "1", "--resume")
    assert steps() == [before[0], before[-1]]
    assert theirs.read_bytes() == b"someone's"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["text.txt", "--log", "m.step-000000100.npz"], "the log"),
        (["m.step-000000100.npz"], "the text itself"),
        (["text.txt", "--valid", "link"], "the text itself"),
    ],
)
def test_what_keep_might_write_over(arguments: list[str], what: str) -> None:
    Path("m.step-000000100.npz").write_text('{"event": "x"}\n' * 40)
    Path("link").symlink_to("m.step-000000100.npz")
    before = {name: Path(name).read_bytes() for name in names()}
    result = CliRunner().invoke(main, ["train", *arguments, "-o", "./m.npz", "--keep", "1"])
    assert result.exit_code == 2
    assert f": is {what}, and --keep might write over it; choose another name" in result.stderr
    assert {name: Path(name).read_bytes() for name in names()} == before


def test_a_step_to_which_training_went_back_is_kept_once() -> None:
    kept = Kept(2)
    for step in (10, 20, 30, 20):
        kept = kept.with_step(step)
    assert (kept.steps, kept.dropped) == ((30, 20), (10,))
    assert Kept(2, (10, 20), (5,)).with_step(5) == Kept(2, (20, 5), (10,))


# ---- a disk that refuses ----


class Disk:
    """Refuses to put files in place whose name has a part, in the turns that it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused: Callable[[str], str] = lambda name: ""
        self.turn = 0  # validations so far
        replace, validated = os.replace, Saver.validated

        def refuse(source: Any, target: Any) -> None:
            reason = self.refused(os.path.basename(target))
            if reason:
                raise OSError(errno.ENOSPC, reason)
            replace(source, target)

        def count(saver: Saver, *, improved: bool) -> None:
            self.turn += 1
            validated(saver, improved=improved)

        monkeypatch.setattr(os, "replace", refuse)
        monkeypatch.setattr(Saver, "validated", count)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


TROUBLE = "cannot be written (full); the training goes on and tries again at the next validation\n"


@pytest.mark.parametrize("part", ["m.", "m.npz", "m.resume", "m.step"])
def test_a_trouble_that_passes_leaves_no_trace(part: str, disk: Disk) -> None:
    trained(*OPTIONS)
    expected = contents()
    for name in names():
        if name != "text.txt":
            os.unlink(name)
    disk.turn = 0
    disk.refused = lambda name: "full" if disk.turn == 2 and part in name else ""
    result = trained(*OPTIONS)
    assert contents() == expected
    files = {"m.": ["m.npz", "m.resume.npz"], "m.resume": ["m.resume.npz"], "m.npz": ["m.npz"]}.get(part, ["m.step-"])
    lines = result.stderr.splitlines(keepends=True)
    assert [line for line in lines if TROUBLE in line] == [line for line in lines if "full" in line]
    assert len(lines) == 2 * len(files)
    for file, trouble, again in zip(files, lines, lines[len(files) :], strict=False):
        assert trouble.startswith(f"charlm: {file}")
        assert again.startswith(f"charlm: {file}")
        assert again.endswith(": is written again\n")


@pytest.mark.parametrize(
    ("turns", "missing"), [((3, 4), "m.step-000000{last}.npz and 1 more"), ((2, 4), "m.step-000000{last}.npz")]
)
def test_kept_models_that_are_missing_at_the_end_are_told(turns: tuple[int, ...], missing: str, disk: Disk) -> None:
    """Those of the last two validations alone: older ones would be gone by now."""
    disk.refused = lambda name: "full" if disk.turn in turns and "m.step" in name else ""
    result = trained(*OPTIONS)
    missing = missing.format(last=f"{state().header['progress']['step']:03}")
    assert result.stderr.splitlines()[-1] == f"charlm: {missing}: could not be written, as --keep 2 asks"


def test_a_trouble_is_told_again_only_when_it_changes(disk: Disk) -> None:
    disk.refused = lambda name: {2: "full", 3: "full", 4: "broken", 5: "broken"}.get(disk.turn, "")
    result = trained(*OPTIONS, "--epochs", "6", "--keep", "0")
    told = [re.sub(r"; the training.*", "", line).removeprefix("charlm: ") for line in result.stderr.splitlines()]
    assert told == [
        "m.npz: cannot be written (full)", "m.resume.npz: cannot be written (full)",
        "m.npz: cannot be written (broken)", "m.resume.npz: cannot be written (broken)",
        "m.npz: is written again", "m.resume.npz: is written again",
    ]  # fmt: skip


def error(*more: str) -> str:
    result = train(*more)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("charlm: error: m.")
    return last.removeprefix("charlm: error: ")


def test_a_trouble_that_lasts(disk: Disk) -> None:
    trained(*OPTIONS)
    expected = contents()
    for name in names():
        if name != "text.txt":
            os.unlink(name)
    disk.turn, disk.refused = 0, lambda name: "full" if disk.turn > 1 else ""
    message = error(*OPTIONS)
    interval = state().header["training"]["valid_interval"]
    assert message == (
        f"m.npz: cannot be written (full); lost are the steps after {interval}; there are m.npz (step {interval}) and "
        f"m.resume.npz (step {interval}): once it can be written, go on with --resume"
    )
    disk.refused = lambda name: ""
    trained("--resume", "--log", "log.jsonl")
    assert contents() == expected


def test_a_model_that_cannot_be_written_waits_in_the_state(disk: Disk) -> None:
    trained(*OPTIONS, "--keep", "0")
    expected = contents()
    for name in names():
        if name != "text.txt":
            os.unlink(name)
    disk.refused = lambda name: "full" if name == "m.npz" else ""
    message = error(*OPTIONS, "--keep", "0")
    step = expected["m.resume.npz"][0]["progress"]["best_step"]
    assert message == (
        f"m.npz: cannot be written (full); the best model, of step {step}, is in m.resume.npz instead: once it can be "
        "written, go on with --resume"
    )
    assert not Path("m.npz").exists()
    disk.refused = lambda name: ""
    trained("--resume")
    assert contents()["m.npz"] == expected["m.npz"]
    assert contents()["m.resume.npz"][1] == expected["m.resume.npz"][1]
    assert state().header["finished"]


def test_a_best_model_that_waits_is_not_trained_further(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is the best; it cannot be written until the fourth was validated."""
    monkeypatch.setattr(LanguageTask, "validation_nats", lambda task: [9.0, 3.0, 1.0, 2.0, 2.0][disk.turn + 1])
    disk.refused = lambda name: "full" if 0 < disk.turn < 4 and "m." in name else ""
    trained(*OPTIONS, "--keep", "0")
    model = checkpoint.load("m.npz")
    for name in names():
        if name != "text.txt":
            os.unlink(name)
    disk.turn, disk.refused = 0, lambda name: ""
    trained(*OPTIONS, "--keep", "0")
    undisturbed = checkpoint.load("m.npz")
    assert all(np.array_equal(model.arrays[path], undisturbed.arrays[path]) for path in undisturbed.arrays)
    assert without_times(model.header) == without_times(undisturbed.header)
    assert len(model.header["history"]) == 2


def test_nothing_could_be_written(disk: Disk) -> None:
    disk.refused = lambda name: "full"
    assert re.fullmatch(r"m.npz: cannot be written \(full\); lost are all \d+ steps", error(*OPTIONS))
    assert names() == ["log.jsonl", "text.txt"]


def test_only_the_last_state_could_not_be_written(disk: Disk) -> None:
    disk.refused = lambda name: "full" if disk.turn > 3 and "resume" in name else ""
    message = error(*OPTIONS)
    assert message.startswith("m.resume.npz: cannot be written (full); the best model is in its place; there are m.npz")
    assert contents()["m.npz"]


def test_a_finished_training_outlasts_one_that_cannot_write(disk: Disk) -> None:
    trained(*SIZES, "--epochs", "1", "--seed", "9")
    before = contents()
    disk.refused = lambda name: "full" if name == "m.resume.npz" else ""
    assert "lost are all" in error(*OPTIONS)
    found = contents()
    assert all(found[name] == before[name] for name in ("m.npz", "m.resume.npz"))  # they belong together


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kept", [1]), ("kept", {}), ("kept", {"count": "1", "steps": [], "dropped": []}),
        ("kept", {"count": 1, "steps": ["../x"], "dropped": []}), ("kept", {"count": 1, "steps": [], "dropped": [-1]}),
        ("best", {"step": 1, "history": [1]}), ("best", [1]),
    ],
)  # fmt: skip
def test_a_state_whose_record_is_wrong(key: str, value: object) -> None:
    trained(*OPTIONS)
    saved = state()
    checkpoint.save("m.resume.npz", {**saved.header, key: value}, saved.arrays, kind=TRAINING_STATE)
    if key == "best":
        arrays = {f"best/{path}": array for path, array in checkpoint.load("m.npz").arrays.items()}
        checkpoint.save("m.resume.npz", state().header, saved.arrays | arrays, kind=TRAINING_STATE)
    before = contents()
    result = train("--resume", "--log", "log.jsonl")
    assert result.exit_code == 1
    assert result.stderr.startswith("charlm: error: m.resume.npz: ")
    assert result.stderr.count("\n") == 1
    assert contents() == before


# ---- --log ----


def test_a_log_that_cannot_be_written_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    Path("sub").mkdir()
    log = TrainingLog("sub/log", told.append, resumed=False)
    log.write({"event": "step", "step": 1})
    Path("sub").rename("gone")
    for step in (2, 3):
        log.write({"event": "step", "step": step})
    assert told == ["sub/log: cannot be written (No such file or directory); the training goes on"]
    Path("gone").rename("sub")
    log.write({"event": "step", "step": 4})
    assert told[1:] == ["sub/log: is written again"]
    assert [json.loads(line)["step"] for line in Path("sub/log").read_text().splitlines()] == [1, 2, 3, 4]
    Path("sub/log").unlink()
    Path("sub").rmdir()
    log.write({"event": "end", "step": 5})
    log.close()
    assert told[-1] == "sub/log: cannot be written (No such file or directory); lost is its last line"


@pytest.mark.parametrize("size", [2**12, 5000])
def test_a_line_that_is_half_written_is_completed(size: int) -> None:
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    told: list[str] = []
    log = TrainingLog("log", told.append, resumed=False)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        for step in range(300):
            log.write({"event": "step", "step": step})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert Path("log").stat().st_size == size
    log.close()
    assert [json.loads(line)["step"] for line in Path("log").read_text().splitlines()] == list(range(300))
    assert len(told) == 1


def line(step: int) -> dict[str, object]:
    return {"event": "step", "step": step}


@pytest.mark.parametrize(
    ("tail", "left"),
    [
        (f"{json.dumps(line(3))}\n", ""),
        (f"{json.dumps(line(3))}\n{{\"event\": \"st", ""),
        ("{\"ev", ""),
        ("", ""),
        ("a remark\n", "a remark\n"),
        ("a remark", "a remark\n"),
        (f"{json.dumps(line(3))}\na remark\n", f"{json.dumps(line(3))}\na remark\n"),
    ],
)  # fmt: skip
def test_what_a_killed_training_logged_is_cut_off(tail: str, left: str) -> None:
    known = "".join(f"{json.dumps(line(step))}\n" for step in (1, 2))
    Path("log").write_text(known + tail)
    log = TrainingLog("log", print, resumed=True, last=line(2))
    log.write(line(4))
    assert Path("log").read_text() == f"{known}{left}{json.dumps(line(4))}\n"


@pytest.mark.parametrize("last", [None, line(9), "x", [1], float("nan")])
def test_a_log_that_the_state_does_not_know_is_gone_on_with(last: object) -> None:
    known = "".join(f"{json.dumps(line(step))}\n" for step in (1, 2))
    Path("log").write_text(known)
    TrainingLog("log", print, resumed=True, last=last).write(line(3))
    assert Path("log").read_text() == f"{known}{json.dumps(line(3))}\n"
