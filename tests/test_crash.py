"""Trainings in processes of their own: killed, hung up, and two of one output. The quick part of tests/faults."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from charlm import checkpoint
from charlm.cli.main import main
from charlm.cli.train import _Signals
from charlm.cli.training_view import TrainingView
from charlm.workflows.train_plan import TRAINING_STATE
from tests.faults.kills import CHARLM, EVERY_EPOCH, Case, Report, Training, differences, torment

CASE = Case("lm", "dinosaurs.txt", 200, ("--epochs", "8", *EVERY_EPOCH, "--bptt", "10", "--keep", "2"))
ENDLESS = Case("lm", "dinosaurs.txt", 200, ("--epochs", "9999999", *EVERY_EPOCH, "--bptt", "10"))

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals as POSIX has them")


def planted(fault: str) -> Sequence[str]:
    """`charlm` with a fault in it."""
    return (sys.executable, "-c", f"{fault}\nfrom charlm.cli.main import run\nrun()")


def test_killed_and_resumed_a_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    report = Report()
    torment(CASE, 3, random.Random(0), tmp_path, report)
    assert report.kills.total() == 3
    assert report.faults == []


IN_PLACE = """
import contextlib, time
from charlm import files
@contextlib.contextmanager
def replacing(path):
    with open(path, "wb") as file:
        time.sleep(0.3)
        yield file
files.replacing = replacing
"""
FORGETFUL = """
from charlm.training.state import TrainingState
restore = TrainingState.restore
def forget(state, arrays, progress):
    restore(state, arrays, progress)
    for moment in state.optimiser.moments.values():
        moment[...] = 0
TrainingState.restore = forget
"""


def test_a_planted_fault_is_found(tmp_path: Path) -> None:
    case, report = Case("lm", "dinosaurs.txt", 200, ("--epochs", "40", *EVERY_EPOCH, "--bptt", "10")), Report()
    undisturbed, training = (Training(case, tmp_path / name, planted(FORGETFUL), report) for name in ("one", "other"))
    undisturbed.run_to_end()
    while not training.is_begun():  # before there is a state, all begins anew
        assert training.kill_at("replaced", random.Random(0))
    training.run_to_end()
    assert "m.resume.npz: parameters/output/w differs" in list(differences(training, undisturbed))


def test_files_written_in_place_are_found(tmp_path: Path) -> None:
    report = Report()
    training = Training(CASE, tmp_path / "place", planted(IN_PLACE), report)
    assert training.kill_at("replaced", random.Random(0))
    training.check_after_kill()
    assert any(re.search(r"does not load: \S+npz: is empty", one) for one in report.faults), report.faults


def unfinished(training: Training) -> int:
    """The step at which a training was saved."""
    header = checkpoint.load(training.folder / "m.resume.npz", kind=TRAINING_STATE).header
    assert not header["finished"]
    return int(header["progress"]["step"])


# ---- two trainings ----


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Training, subprocess.Popen[bytes]]]:
    """A training that has validated, and goes on."""
    training = Training(ENDLESS, tmp_path / "place", CHARLM, Report())
    process = training.start()
    while not any(line.startswith("epoch ") for line in training.told()):
        assert process.poll() is None, training.told()
        threading.Event().wait(0.01)
    yield training, process
    process.kill()
    training.wait(process)


def test_two_trainings_into_one_output_refuse_each_other(
    running: tuple[Training, subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    training, process = running
    monkeypatch.chdir(training.place)
    Path("link.npz").symlink_to("out/m.npz")

    def second(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["train", "text", *arguments])
        assert result.exit_code == 1
        return result.stderr

    by = rf"another training is writing it \(process {process.pid} on \S+\); wait for it, or choose another"
    assert re.fullmatch(rf"charlm: error: out/m.npz: {by} -o\n", second("-o", "out/m.npz"))
    assert re.fullmatch(rf"charlm: error: link.npz: {by} -o\n", second("-o", "link.npz", "--resume"))
    log = ("--log", "out/log.jsonl")
    assert re.fullmatch(rf"charlm: error: out/log.jsonl: {by} --log\n", second("-o", "n.npz", *log))
    process.kill()
    process.wait()
    step = unfinished(training)
    epochs = checkpoint.load("out/m.resume.npz", kind=TRAINING_STATE).header["progress"]["epoch"] + 1
    result = CliRunner().invoke(main, ["train", "text", "-o", "out/m.npz", "--resume", "--epochs", str(epochs), *log])
    assert result.exit_code == 0
    assert f"going on at step {step:,}" in result.stderr
    assert sorted(training.names()) == ["log.jsonl", "m.npz", "m.resume.npz"]


# ---- signals ----


def test_a_hang_up_saves(running: tuple[Training, subprocess.Popen[bytes]]) -> None:
    training, process = running
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    assert training.wait(process) == 128 + signal.SIGHUP
    assert f"stopped at step {unfinished(training):,} (hung up); saved in out/m.resume.npz" in training.told()[-1]


def test_what_a_second_signal_does() -> None:
    view = TrainingView(quiet=True)
    signals = _Signals(view)
    for number in (signal.SIGHUP, signal.SIGTERM):
        with pytest.raises(SystemExit) as caught:
            signals.handle(number, None)
        assert caught.value.code == 128 + number  # there is nothing to save yet
    view.begun = True
    signals.handle(signal.SIGHUP, None)
    signals.handle(signal.SIGHUP, None)
    signals.handle(signal.SIGTERM, None)  # as a system that goes down sends them
    signals.handle(signal.SIGHUP, None)
    with pytest.raises(SystemExit) as caught:
        signals.handle(signal.SIGINT, None)
    assert caught.value.code == 130


class Terminal:
    """`charlm train` in a terminal that can be closed."""

    def __init__(self, training: Training, *, is_under_nohup: bool) -> None:
        pty = pytest.importorskip("pty")
        self.master, slave = pty.openpty()
        name = os.ttyname(slave)
        os.close(slave)
        trap = "trap '' HUP;" if is_under_nohup else ""
        self.process = subprocess.Popen(
            # The shell has no terminal yet; that which it opens becomes its own, and hangs it up.
            ["sh", "-c", f'{trap} exec "$@" <{name} >{name} 2>&1', "sh", *CHARLM, *training.case.arguments()],
            cwd=training.place, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            start_new_session=True,
        )  # fmt: skip
        self.shown = b""

    def wait_for(self, text: bytes) -> None:
        while text not in self.shown:
            try:
                self.shown += os.read(self.master, 4096)
            except OSError:  # nobody has opened the other end yet
                assert self.process.poll() is None, self.shown
                threading.Event().wait(0.01)

    def close(self) -> int:
        os.close(self.master)
        try:
            return self.process.wait(120)
        finally:
            self.process.kill()
            self.process.wait()


def test_a_closed_terminal_saves(tmp_path: Path) -> None:
    training = Training(ENDLESS, tmp_path / "place", CHARLM, Report())
    terminal = Terminal(training, is_under_nohup=False)
    terminal.wait_for(b"best so far")
    assert terminal.close() == 128 + signal.SIGHUP
    assert unfinished(training) > 0
    assert sorted(training.names()) == ["log.jsonl", "m.npz", "m.resume.npz"]


def test_a_training_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    case = Case("lm", "dinosaurs.txt", 200, ("--epochs", "30", *EVERY_EPOCH, "--bptt", "10"))
    training = Training(case, tmp_path / "place", CHARLM, Report())
    terminal = Terminal(training, is_under_nohup=True)
    terminal.wait_for(b"best so far")
    assert terminal.close() == 0
    assert checkpoint.load(training.folder / "m.resume.npz", kind=TRAINING_STATE).header["finished"]
    assert training.log_lines()[-1]["event"] == "end"
