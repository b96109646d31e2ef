"""A team of threads that run one function side by side, each on its own share of the work."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

Task = Callable[[int, int], None]  # (part, parts)


def _quota(folder: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores that a container's quota allows, infinite if there is none."""
    for name, period in (("cpu.max", None), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = (folder / name).read_text().split()
            words += (folder / period).read_text().split() if period else []
            if words[0] not in ("max", "-1"):
                return int(words[0]) / int(words[1])
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            continue
    return float("inf")


def available_cores() -> int:
    """Cores that this process may use: its affinity, its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, _quota())))


class Team:
    """Threads that wait between tasks. The caller works too, as part 0.

    A task is a Python function that calls kernels; kernels release Python's lock, so the parts run at once.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._task: Task | None = None
        self._error: BaseException | None = None
        self._start = [threading.Semaphore(0) for _ in range(threads - 1)]
        self._done = [threading.Semaphore(0) for _ in range(threads - 1)]
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
            try:
                self._task(i + 1, self.threads)
            except BaseException as error:  # handed to the caller of `run`
                self._error = error
            self._done[i].release()

    def run(self, task: Task) -> None:
        """Run ``task(part, parts)`` on every thread; returns when all are done. A part's exception is raised here."""
        self._task, self._error = task, None
        for start in self._start:
            start.release()
        try:
            task(0, self.threads)
        finally:
            interrupt = self._wait()
        if interrupt is not None:
            raise interrupt
        if self._error is not None:
            raise self._error

    def _wait(self) -> KeyboardInterrupt | None:
        """Wait until all threads are done; an interrupt meanwhile is handed back, not obeyed."""
        interrupt = None
        for done in self._done:
            while True:
                try:
                    done.acquire()
                    break
                except KeyboardInterrupt as error:
                    interrupt = error
        return interrupt

    def close(self) -> None:
        """End the threads."""
        self._task = None
        for start in self._start:
            start.release()
        for worker in self._workers:
            worker.join()
        self._start, self._done, self._workers = [], [], []
        self.threads = 1


def share(total: int, part: int, parts: int) -> tuple[int, int]:
    """The ``part``-th of ``parts`` nearly equal pieces of 0 .. total."""
    return total * part // parts, total * (part + 1) // parts
