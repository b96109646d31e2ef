"""The team of threads, and how many cores there are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from charlm.engine import threads
from charlm.engine.threads import Pieces, Team, available_cores, share
from tests.terminal import ROOT


@pytest.fixture(params=[1, 2, 3, 5])
def team(request: pytest.FixtureRequest) -> Iterator[Team]:
    made = Team(request.param)
    yield made
    made.close()


def test_every_part_runs_once_in_each_run(team: Team) -> None:
    for _ in range(200):
        seen: list[tuple[int, int]] = []
        team.run(lambda part, parts, seen=seen: seen.append((part, parts)))  # type: ignore[misc]
        assert sorted(seen) == [(part, team.threads) for part in range(team.threads)]


def test_the_parts_run_at_once_and_the_caller_is_part_0(team: Team) -> None:
    """Each part waits for all others: parts that ran one after another would never end."""
    barrier, runners = threading.Barrier(team.threads), {}

    def task(part: int, parts: int) -> None:
        runners[part] = threading.get_ident()
        barrier.wait(timeout=30)

    team.run(task)
    assert runners[0] == threading.get_ident()
    assert len(set(runners.values())) == team.threads


def test_run_returns_when_all_parts_are_done() -> None:
    team, done, late = Team(2), [], threading.Event()

    def task(part: int, parts: int) -> None:
        if part == 0:
            late.set()
        else:
            late.wait(timeout=30)  # part 0 has finished by then
        done.append(part)

    team.run(task)
    assert sorted(done) == [0, 1]
    team.close()


def test_an_exception_of_any_part_is_raised_after_all_are_done(team: Team) -> None:
    for failing in range(team.threads):
        done = []

        def task(part: int, parts: int, failing: int = failing, done: list[int] = done) -> None:
            if part == failing:
                raise ValueError(f"part {part}")
            done.append(part)

        with pytest.raises(ValueError, match=f"part {failing}"):
            team.run(task)
        assert sorted(done) == [part for part in range(team.threads) if part != failing]
        after: list[int] = []
        team.run(lambda part, parts, after=after: after.append(part))  # type: ignore[misc]
        assert sorted(after) == list(range(team.threads)), "an old exception must not come back"


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs a signal to a thread")
def test_an_interrupt_is_raised_after_all_are_done() -> None:
    """Ctrl-C while the caller waits: what is saved then must not be written to by a part that still runs."""
    team, main, done = Team(2), threading.get_ident(), []

    def task(part: int, parts: int) -> None:
        if part == 1:
            time.sleep(0.05)  # the caller waits by now
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.2)
            done.append(part)

    with pytest.raises(KeyboardInterrupt):
        team.run(task)
    assert done == [1]
    team.close()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs a signal to a thread")
def test_interrupts_at_any_moment_leave_nobody_waiting() -> None:
    """In a process of its own, which would wait for good."""
    code = """
import signal, threading, time
from charlm.engine.threads import Team
signal.signal(signal.SIGINT, signal.default_int_handler)
team, main, caught, over, running = Team(3), threading.get_ident(), 0, [], [0, 0, 0]
def task(part, parts):
    running[part] += 1
    time.sleep(0.0001 * part)
    running[part] -= 1
def interrupt():
    for i in range(400):
        time.sleep(0.001 + i % 7 * 0.0001)
        signal.pthread_kill(main, signal.SIGINT)
    time.sleep(0.1)
    over.append(True)
sender = threading.Thread(target=interrupt)
while True:
    try:
        if not sender.ident:
            sender.start()
        while not over:
            team.run(task)
        break
    except KeyboardInterrupt:
        caught += 1
    assert running[1:] == [0, 0]
assert caught > 100, caught
team.run(task)
print("over")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=60,
        check=False, text=True,
    )  # fmt: skip
    assert (result.stdout, result.stderr) == ("over\n", "")


def test_close_ends_the_threads() -> None:
    before = threading.active_count()
    team = Team(4)
    assert threading.active_count() == before + 3
    team.close()
    assert threading.active_count() == before
    team.close()
    seen = []
    team.run(lambda part, parts: seen.append((part, parts)))
    assert seen == [(0, 1)]


@pytest.mark.parametrize("total", [0, 1, 2, 7, 64, 1001])
@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_shares_cover_everything_once_and_are_nearly_equal(total: int, parts: int) -> None:
    pieces = [share(total, part, parts) for part in range(parts)]
    assert [i for first, last in pieces for i in range(first, last)] == list(range(total))
    sizes = [last - first for first, last in pieces]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/", {"cpu.max": "max 100000\n"}, float("inf")),
        ("0::/a/b\n", {"a/b/cpu.max": "300000 100000"}, 3.0),  # a service or a batch job, not a container
        ("0::/a/b\n", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "200000 100000", "cpu.max": "max 100000"}, 2.0),
        ("0::/a:b\n", {"a:b/cpu.max": "300000 100000"}, 3.0),
        ("0::/host/path\n", {"cpu.max": "200000 100000\n"}, 2.0),  # a container that sees the host's path
        ("0::/../../x\n", {"x/cpu.max": "200000 100000\n"}, 2.0),  # a process from outside the namespace
        ("", {"cpu.max": "200000 100000\n"}, 2.0),
        ("1:cpu:/\n0::/", {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1.5),
        ("1:cpu:/\n0::/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, float("inf")),
        (
            "4:cpu,cpuacct:/a/b\n2:cpuset:/c",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
            2.5,
        ),
        (
            "4:cpu,cpuacct:/docker/1\n",
            {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            2.5,
        ),
        ("2:cpuset:/a\n", {"cpuset/a/cpu.cfs_quota_us": "1", "cpuset/a/cpu.cfs_period_us": "1"}, float("inf")),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "150000\n"}, float("inf")),
        ("0::/", {"cpu.max": ""}, float("inf")),
        ("0::/", {"cpu.max": "garbage 100000"}, float("inf")),
        ("0::/", {"cpu.max": "100000 0"}, float("inf")),
        ("0::/", {"cpu.max": "100000"}, float("inf")),
        ("garbage\n::\n", {}, float("inf")),
        (None, {}, float("inf")),
    ],
)
def test_the_quotas_of_cgroups(own: str | None, files: dict[str, str], cores: float, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert threads._quota(tmp_path / "own", tmp_path / "root") == cores


@pytest.mark.parametrize(("quota", "cores"), [(0.5, 1), (1.0, 1), (2.9, 2), (float("inf"), 6)])
def test_available_cores(quota: float, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(threads, "_quota", lambda: quota)
    assert available_cores() == cores


def test_available_cores_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(threads, "_quota", lambda: float("inf"))
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert available_cores() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


def test_each_piece_is_done_once_and_not_before_all_threads_have_reached_its_stage() -> None:
    team = Team(3)
    reached: list[int] = []
    done: list[tuple[int, int, int, int]] = []

    def piece(stage: int, part: int, parts: int) -> None:
        done.append((stage, reached.count(stage), part, parts))

    def work(part: int, parts: int) -> None:
        for stage in (1, 0):
            time.sleep(0.01 * part)
            reached.append(stage)
            pieces.reach(stage)
        pieces.work()

    for _ in range(20):
        reached[:], done[:] = [], []
        pieces = Pieces(3, [(1, partial(piece, 1), 4), (0, partial(piece, 0), 3)])
        team.run(work, pieces.dissolve)
        assert sorted(done) == sorted([(1, 3, i, 4) for i in range(4)] + [(0, 3, i, 3) for i in range(3)])
    team.close()


@pytest.mark.parametrize("at_fault", [0, 1])
def test_nobody_waits_at_a_piece_for_a_thread_that_failed(at_fault: int) -> None:
    team, pieces = Team(2), Pieces(2, [(0, lambda part, parts: None, 2)])

    def work(part: int, parts: int) -> None:
        if part == at_fault:
            raise ValueError("no memory, say")
        pieces.reach(0)
        pieces.work()

    with pytest.raises(ValueError, match="no memory"):
        team.run(work, pieces.dissolve)
    team.close()


def test_a_thread_that_is_late_leaves_its_pieces_to_the_others() -> None:
    team = Team(2)
    who: list[str] = []
    pieces = Pieces(2, [(0, lambda part, parts: who.append(threading.current_thread().name), 6)])
    over = threading.Event()

    def work(part: int, parts: int) -> None:
        pieces.reach(0)
        if part == 1:
            over.wait(10)
        pieces.work()
        over.set()

    team.run(work, pieces.dissolve)
    team.close()
    assert who == [threading.current_thread().name] * 6
