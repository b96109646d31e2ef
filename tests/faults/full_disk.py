"""Take the disk away from a running `charlm train`, in several ways, and see what it tells, keeps and ends with.

    python -m tests.faults.full_disk [--scene NAME ...]

Scenes: a full disk (a small tmpfs, which only root can mount), a limit on the size of files, a folder that may not be
written any more, a folder that is removed, an I/O error in fsync, a model that may not be replaced while its state may.
Each is played twice. Passing: the trouble is over after a while; one line tells of it for each file, another that the
file is written again, and the end is the same bits as of a training that nothing happened to. Lasting: exit code 1 and
one line at the end, what lay there before is untouched, and with the trouble over --resume ends with the same bits.
Exit code 1 if anything else was found.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.kills import CHARLM, EVERY_EPOCH, LONGEST_SECONDS, Case, Report, Training, differences
from tests.faults.machine import machine

CASE = Case("lm", "dinosaurs.txt", 400, ("--epochs", "80", *EVERY_EPOCH, "--bptt", "10", "--keep", "2"))
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
TROUBLE, AGAIN = "; the training goes on", "is written again"
MODEL, STATE, LOG, STEP = "out/m.npz", "out/m.resume.npz", "out/log.jsonl", "out/m.step-*.npz"

# `charlm`, whose fsync fails as long as there is a file "broken".
BROKEN_FSYNC = """
import errno, os
fsync = os.fsync
def broken_fsync(descriptor):
    if os.path.exists("broken"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    fsync(descriptor)
os.fsync = broken_fsync
from tests.faults.machine import machine
from charlm.cli.main import run
run()
"""


class Scene:
    """What happens to a training's disk; ``begin`` and ``end`` are called while it runs.

    Attributes:
        reason: what the lines give as the reason.
        troubled: the files that cannot be written, as lines name them.
        destroys: whether what was there before is lost.
    """

    reason = ""
    troubled: tuple[str, ...] = (MODEL, STATE)
    destroys = False
    command: Sequence[str] = CHARLM

    def __init__(self, training: Training) -> None:
        self.training, self.folder = training, training.folder

    def prepare(self) -> None:
        """Before the training starts."""

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        raise NotImplementedError

    def end(self, process: subprocess.Popen[bytes]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Whatever happens."""


class FullDisk(Scene):
    """A file system of 400 KB, filled to the last byte."""

    reason = "No space left on device"
    troubled = (MODEL, STATE, LOG)

    def prepare(self) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(self.folder)], check=True)

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(OSError), open(self.folder / "ballast", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def end(self, process: subprocess.Popen[bytes]) -> None:
        (self.folder / "ballast").unlink()

    def close(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=False)


class FileSizeLimit(Scene):
    """No file may grow beyond 1 KB."""

    reason = "File too large"
    troubled = (MODEL, STATE, LOG)

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        self._limit(process, 1024)

    def end(self, process: subprocess.Popen[bytes]) -> None:
        self._limit(process, -1)

    def _limit(self, process: subprocess.Popen[bytes], size: int) -> None:
        import resource  # POSIX

        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, -1))


class ReadOnlyFolder(Scene):
    """No file may be made, renamed or removed in the folder; for root by an attribute of ext4 and others."""

    reason = "Operation not permitted" if IS_ROOT else "Permission denied"

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        if IS_ROOT:
            subprocess.run(["chattr", "+i", str(self.folder)], check=True)
        else:
            self.folder.chmod(0o555)

    def end(self, process: subprocess.Popen[bytes]) -> None:
        self.close()

    def close(self) -> None:
        if IS_ROOT:
            subprocess.run(["chattr", "-i", str(self.folder)], check=False)
        else:
            self.folder.chmod(0o755)


class RemovedFolder(Scene):
    """The folder and all in it is removed; later there is an empty one."""

    reason = "there is no folder"
    troubled = (MODEL, STATE, LOG)
    destroys = True

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        self.folder.rename(self.folder.with_name("gone"))  # at once, not file by file
        shutil.rmtree(self.folder.with_name("gone"))

    def end(self, process: subprocess.Popen[bytes]) -> None:
        self.folder.mkdir()


class BrokenDisk(Scene):
    """What was written does not reach the disk."""

    reason = "Input/output error"
    command = (sys.executable, "-c", BROKEN_FSYNC)

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        (self.training.place / "broken").touch()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        (self.training.place / "broken").unlink()


class ProtectedModel(Scene):
    """The model alone may not be replaced; the state keeps the better one."""

    reason = "is write-protected" if IS_ROOT else "is a folder"
    troubled = (MODEL,)

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        if IS_ROOT:
            subprocess.run(["chattr", "+i", str(self.folder / "m.npz")], check=True)
        else:
            (self.folder / "m.npz").rename(self.folder / "old")
            (self.folder / "m.npz").mkdir()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        if IS_ROOT:
            self.close()
        else:
            (self.folder / "m.npz").rmdir()
            (self.folder / "old").rename(self.folder / "m.npz")

    def close(self) -> None:
        if IS_ROOT:
            subprocess.run(["chattr", "-i", str(self.folder / "m.npz")], check=False, capture_output=True)


SCENES: dict[str, type[Scene]] = {
    "full disk": FullDisk,
    "file size limit": FileSizeLimit,
    "read-only folder": ReadOnlyFolder,
    "removed folder": RemovedFolder,
    "I/O error": BrokenDisk,
    "protected model": ProtectedModel,
}


@dataclass
class Play:
    """One scene with one training."""

    training: Training
    scene: Scene

    def expect(self, is_so: bool, fault: str) -> None:
        self.training.expect(is_so, f"{type(self.scene).__name__}: {fault}")

    def lines(self) -> list[str]:
        return self.training.told()

    def wait_for(self, process: subprocess.Popen[bytes], what: str, condition: Callable[[list[str]], bool]) -> bool:
        """Until the lines on stderr are as wanted; it is a fault if the training ends before."""
        end = time.monotonic() + LONGEST_SECONDS
        while not condition(self.lines()):
            if process.poll() is not None or time.monotonic() > end:
                self.expect(condition(self.lines()), f"ended, or hung, before {what}: {self.lines()[-3:]}")
                return False
            time.sleep(0.001)
        return True

    def validations(self, number: int) -> Callable[[list[str]], bool]:
        """That so many more validations were told."""

        def count(lines: list[str]) -> int:
            return sum(line.startswith("epoch ") for line in lines)

        before = count(self.lines())
        return lambda lines: count(lines) >= before + number

    def files(self) -> dict[str, bytes]:
        if not self.training.folder.is_dir():
            return {}
        paths = (path for path in self.training.folder.glob("m.*") if path.is_file())
        return {path.name: path.read_bytes() for path in paths}

    def told(self, ending: str) -> list[str]:
        """The files of which lines with this ending tell, numbers of steps left out."""
        found = (re.fullmatch(rf"charlm: (\S+): (.*){ending}.*", line) for line in self.lines())
        return sorted(re.sub(r"step-\d+", "step-*", match[1]) for match in found if match)

    def pass_by(self) -> None:
        """The trouble begins, and is over after a while."""
        process = self.training.start()
        try:
            if not self.wait_for(process, "the third validation", self.validations(3)):
                return
            self.scene.begin(process)
            wanted = len(self.scene.troubled)
            if self.wait_for(process, "all lines of trouble", lambda _: len(self.told(TROUBLE)) >= wanted):
                self.wait_for(process, "four more validations", self.validations(4))
            self.scene.end(process)
        finally:
            code = self.training.wait(process)
        self.expect(code == 0, f"exit code {code}: {self.lines()[-1:]}")
        self.expect_told()
        self.expect(self.told(AGAIN) == self.told(TROUBLE), f"written again are {self.told(AGAIN)}")

    def last(self) -> int:
        """The trouble begins and stays; the exit code."""
        process = self.training.start()
        try:
            if not self.wait_for(process, "the third validation", self.validations(3)):
                return 0
            self.scene.begin(process)
            wanted = len(self.scene.troubled)
            self.wait_for(process, "all lines of trouble", lambda _: len(self.told(TROUBLE)) >= wanted)
            before = self.files()
        finally:
            code = self.training.wait(process)
        last = self.lines()[-1]
        self.expect(code == 1 and last.startswith("charlm: error: out/m."), f"exit code {code}, {last!r}")
        self.expect_told()
        after = self.files()
        for name, data in before.items():
            if f"out/{name}" in self.scene.troubled:
                self.expect(after.get(name) == data, f"{name} is not what it was")
        self.scene.end(process)
        return code

    def expect_told(self) -> None:
        told = self.told(TROUBLE)
        others = [name for name in told if name != STEP]  # perhaps it was the first that failed
        self.expect(others == sorted(self.scene.troubled), f"trouble told of {told}")
        self.expect(told.count(STEP) <= 1, f"trouble told of {told}")
        lines = [line for line in self.lines() if TROUBLE in line]
        self.expect(all(self.scene.reason in line or LOG in line for line in lines), f"told as {lines}")
        self.expect(not any("Traceback" in line for line in self.lines()), "a traceback")


def play(name: str, place: Path, undisturbed: Training, report: Report) -> Iterator[str]:
    """Both variants of a scene; yields what the user was told."""
    for variant in ("passing", "lasting"):
        kind = SCENES[name]
        training = Training(CASE, place / f"{kind.__name__} {variant}", kind.command, report)
        scene = kind(training)
        scene.prepare()
        try:
            one = Play(training, scene)
            if variant == "passing":
                one.pass_by()
            elif one.last() == 1:
                yield one.lines()[-1]
                training.run_to_end()
            found = list(differences(training, undisturbed))
            if variant == "passing" and scene.destroys:  # what was written before is lost, and only that
                found = [one for one in found if one != "the log differs"]
            for difference in found:
                one.expect(False, f"{variant}: {difference}")
            if variant == "passing":
                yield from (line for line in one.lines() if TROUBLE in line or AGAIN in line)
        finally:
            scene.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", choices=list(SCENES), nargs="+", default=list(SCENES), help="only these")
    options = parser.parse_args()
    print(machine(), flush=True)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="charlm-disk-") as folder:
        undisturbed = Training(CASE, Path(folder) / "undisturbed", CHARLM, report)
        undisturbed.run_to_end()
        for name in options.scene:
            if name == "full disk" and not IS_ROOT:
                print(f"\n{name}: only root can mount a file system; left out")
                continue
            begin, faults = time.perf_counter(), len(report.faults)
            told = list(play(name, Path(folder), undisturbed, report))
            print(f"\n{name}: {len(report.faults) - faults} faults, {time.perf_counter() - begin:.0f} s")
            print("\n".join(f"  {line}" for line in told), flush=True)
    for fault in report.faults:
        print(f"FAULT  {fault}")
    print(f"\n{2 * len(options.scene)} plays, {len(report.faults)} faults")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
