"""A team of threads that run one function side by side, each on its own share of the work."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from operator import length_hint
from pathlib import Path
from typing import Any

Task = Callable[[int, int], None]  # (part, parts)
LOCK: Any = type(threading.Lock())


def _cgroups(own: Path, root: Path) -> Iterator[tuple[Path, str, str]]:
    """Folders that may hold a quota on this process: its own cgroup's, and all of those that hold that one.

    In a container the paths are often the host's and lead nowhere; the root then is the container's own cgroup.

    Yields:
        The folder, and the names of the files of the quota and of the period; no second name if one file holds both.
    """
    try:
        lines = own.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    places = {(root, "/", "cpu.max", ""), (root / "cpu", "/", "cpu.cfs_quota_us", "cpu.cfs_period_us")}
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:  # version 2
            places.add((root, path, "cpu.max", ""))
        elif "cpu" in controllers.split(","):
            places.add((root / controllers, path, "cpu.cfs_quota_us", "cpu.cfs_period_us"))
            places.add((root / "cpu", path, "cpu.cfs_quota_us", "cpu.cfs_period_us"))
    for mount, path, quota, period in places:
        names = [name for name in path.split("/") if name not in ("", "..")]
        for depth in range(len(names) + 1):
            yield mount.joinpath(*names[:depth]), quota, period


def _quota(own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores that the quotas of this process's cgroups allow, the least of them; infinite if there is none."""
    cores = float("inf")
    for folder, quota, period in _cgroups(own, root):
        try:
            words = (folder / quota).read_text().split()
            words += (folder / period).read_text().split() if period else []
            if words[0] not in ("max", "-1"):
                cores = min(cores, int(words[0]) / int(words[1]))
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue
    return cores


def available_cores() -> int:
    """Cores that this process may use: its affinity, its cgroups' quotas (of a container, a batch job, a service)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, _quota())))


def _taken() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


class Team:
    """Threads that wait between tasks. The caller works too, as part 0.

    A task is a Python function that calls kernels; kernels release Python's lock, so the parts run at once.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._task: Task | None = None
        self._error: BaseException | None = None
        self._dissolve: Callable[[], None] | None = None
        # Locks, each let go by another thread than took it: 40 us a task instead of 53 with semaphores, which are
        # written in Python.
        self._start = [_taken() for _ in range(threads - 1)]
        self._done: list[threading.Lock] = []  # of the task at hand, made anew for each
        self._finished: list[bool] = []  # set before its lock is let go
        self._workers = [
            threading.Thread(target=self._work, args=(i,), daemon=True, name=f"charlm-{i + 1}")
            for i in range(threads - 1)
        ]
        for worker in self._workers:
            worker.start()

    def _work(self, i: int) -> None:
        while True:
            self._start[i].acquire()
            if self._task is None:
                return
            done, finished = self._done, self._finished  # the caller may begin another task once this one is finished
            try:
                self._task(i + 1, self.threads)
            except BaseException as error:  # handed to the caller of `run`
                self._error = error
                if self._dissolve is not None:
                    self._dissolve()
            finished[i] = True
            done[i].release()

    def run(self, task: Task, dissolve: Callable[[], None] | None = None) -> None:
        """Run ``task(part, parts)`` on every thread; returns when all are done. A part's exception is raised here.

        Args:
            dissolve: called if a part fails, for a task whose parts wait for each other.
        """
        self._task, self._error, self._dissolve = task, None, dissolve
        self._done, self._finished = [_taken() for _ in self._start], [False] * len(self._start)
        asleep, interrupt = iter(self._start), None
        try:
            deque(map(LOCK.release, asleep), 0)  # in one call: an interrupt comes before it or after
            task(0, self.threads)
        except BaseException:
            if dissolve is not None:
                dissolve()
            raise
        finally:
            while True:  # an interrupt meanwhile is raised when all are done
                try:
                    self._wait(len(self._start) - length_hint(asleep))
                    break
                except KeyboardInterrupt as error:
                    interrupt = error
        if interrupt is not None:
            raise interrupt
        if self._error is not None:
            raise self._error

    def _wait(self, begun: int) -> None:
        """Wait until so many threads are done; whoever is interrupted may wait again."""
        for finished, done in zip(self._finished[:begun], self._done, strict=False):
            if not finished:  # or an interrupt may have come when its lock was taken already
                done.acquire()

    def close(self) -> None:
        """End the threads."""
        self._task = None
        for start in self._start:
            start.release()
        for worker in self._workers:
            worker.join()
        self._start, self._workers = [], []
        self.threads = 1


class Pieces:
    """Work in pieces for the threads of a team: whoever is free takes the next.

    Threads are seldom ready at the same moment, for their processors are not equally free. Those that are first do more
    of this, instead of waiting. Who takes a piece must change no bit: no number may belong to two of them.

    Args:
        threads: of the team.
        tasks: in the order in which they are taken: the stage that all threads must have reached before, what is
            to be done, and in how many pieces.
    """

    def __init__(self, threads: int, tasks: Sequence[tuple[int, Task, int]]) -> None:
        self._queue = deque((stage, task, part, parts) for stage, task, parts in tasks for part in range(parts))
        self._missing = {stage: threads for stage, _, _ in tasks}
        self._reached = {stage: threading.Event() for stage in self._missing}
        self._lock = threading.Lock()

    def reach(self, stage: int) -> None:
        """One share of what the pieces of a stage need is done; there are as many as threads."""
        with self._lock:
            self._missing[stage] -= 1
            if self._missing[stage] == 0:
                self._reached[stage].set()

    def work(self) -> None:
        """Do pieces until none is left; others may still be at theirs."""
        while True:
            try:
                stage, task, part, parts = self._queue.popleft()
            except IndexError:
                return
            self._reached[stage].wait()
            task(part, parts)

    def dissolve(self) -> None:
        """Let nobody wait for a thread that will not come; what the others compute is then of no use."""
        for event in self._reached.values():
            event.set()


def share(total: int, part: int, parts: int) -> tuple[int, int]:
    """The ``part``-th of ``parts`` nearly equal pieces of 0 .. total."""
    return total * part // parts, total * (part + 1) // parts
