"""The suite with the lowest and with the newest versions that pyproject.toml allows, on several Pythons.

    python -m tests.faults.versions --python PATH [--python PATH ...] [--versions lowest|newest] [--quick]

For each interpreter and for either end of the bounds: a virtual environment in a temporary folder, a copy of the
checkout, `pip install` of it with its tests' extra, the suite with no kernel compiled before. "Lowest" pins every
requirement that pyproject.toml names, the one to build with too, to its lower bound, or to the first version above it
that has a wheel for that Python; what these require themselves is as new as they allow. "Newest" pins nothing.

Needs Python 3.11 or newer to run itself, or pip beside it, and no other package: so it can also be run in a container
or a chroot that holds nothing but an interpreter and this checkout. Packages come from where pip takes them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.table import Table

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).parents[2]
PYPROJECT = ROOT / "pyproject.toml"
UNWANTED = shutil.ignore_patterns(
    ".git", "build", "dist", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "*.npz"
)
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)")
SHOWN = ("numpy", "numba", "llvmlite", "click", "tqdm", "pytest", "hypothesis")
QUICK = (  # what touches Numba's insides, Click's, NumPy's promotion, pytest's and hypothesis's
    "test_jit", "test_kernel_cache", "test_matmul", "test_math", "test_layers", "test_cli_sample", "test_cli_score",
    "test_cli_train", "test_main", "test_tokenizer", "test_token_file",
)  # fmt: skip
TABLE = Table(
    ("Python", 9), ("versions", 8), *((name, 10) for name in SHOWN), ("passed", 6), ("failed", 6), ("skipped", 7),
    ("s", 6), ("CPU s", 6),
)  # fmt: skip
VERSIONS_OF = """
import json, platform, sys
from importlib.metadata import PackageNotFoundError, version
def find(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return "-"
json.dump({"python": platform.python_version(), **{name: find(name) for name in sys.argv[1:]}}, sys.stdout)
"""


class Unusable(Exception):
    """A combination that cannot be tried, and why."""


@dataclass(frozen=True)
class Bounds:
    """What pyproject.toml allows: each requirement's name and lower bound."""

    python: str
    build: dict[str, str]
    run: dict[str, str]
    test: dict[str, str]

    @property
    def installed(self) -> dict[str, str]:
        """Those of the environment that the suite runs in."""
        return self.run | self.test


def project(path: Path = PYPROJECT) -> dict[str, Any]:
    """The table of that name of a pyproject.toml."""
    found: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))["project"]
    return found


def bounds(path: Path = PYPROJECT) -> Bounds:
    """Read them.

    Raises:
        ValueError: a requirement that says anything but a name and a lower bound.
    """

    def parse(requirements: Sequence[str]) -> dict[str, str]:
        found = {}
        for requirement in requirements:
            match = REQUIREMENT.fullmatch(requirement)
            if match is None:
                raise ValueError(f"{path}: {requirement!r} is not NAME>=VERSION")
            found[match[1]] = match[2]
        return found

    build = tomllib.loads(path.read_text("utf-8"))["build-system"]["requires"]
    table = project(path)
    return Bounds(
        table["requires-python"].removeprefix(">="),
        parse(build),
        parse(table["dependencies"]),
        parse(table["optional-dependencies"]["test"]),
    )


def number(version: str) -> tuple[int, ...]:
    """A version as numbers that compare; what is no number (of a pre-release) ends it. Trailing zeros do not count."""
    parts = [int(part) for part in re.match(r"[0-9.]*", version)[0].split(".") if part]  # type: ignore[index]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def environment(**settings: str) -> dict[str, str]:
    """This process's, without what would let one Python find another's packages or kernels."""
    unwanted = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CHARLM_CACHE_DIR")
    return {key: value for key, value in os.environ.items() if key not in unwanted} | settings


@dataclass
class Trial:
    """One interpreter with one end of the bounds."""

    python: str
    end: str
    folder: Path
    pins: list[str]
    arguments: list[str]
    minutes: float
    versions: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    problem: str = ""
    output: str = ""

    @property
    def own_python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    def call(self, *command: str, cwd: Path | None = None, **settings: str) -> str:
        """Run a command to its end; what it printed."""
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=environment(PIP_DISABLE_PIP_VERSION_CHECK="1", **settings),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Unusable(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-3000:]}")
        return done.stdout

    def pip(self, *arguments: str) -> str:
        return self.call(str(self.own_python), "-m", "pip", *arguments)

    def lowest(self, name: str, bound: str) -> str:
        """The first version from the bound on that has a wheel for this Python."""
        found = re.search(r"Available versions: (.*)", self.pip("index", "versions", name))
        usable = [text for text in (found[1].split(", ") if found else []) if number(text) >= number(bound)]
        for version in sorted(usable, key=number):
            with contextlib.suppress(Unusable):  # pip's list has those without a wheel for this Python too
                self.pip("install", "--dry-run", "--no-deps", "--only-binary", ":all:", f"{name}=={version}")
                return version
        raise Unusable(f"no wheel of {name}>={bound} for this Python")

    def install(self, wanted: Bounds) -> None:
        """Make the environment."""
        self.call(self.python, "-m", "venv", str(self.folder / "venv"))
        shutil.copytree(ROOT, self.folder / "checkout", ignore=UNWANTED)
        project = f"{self.folder / 'checkout'}[test]"
        if self.end == "newest":
            self.pip("install", "--upgrade", project, *self.pins)
            return
        own = {pin.partition("==")[0] for pin in self.pins}
        pins = [f"{name}=={self.lowest(name, bound)}" for name, bound in wanted.installed.items() if name not in own]
        build = [f"{name}=={self.lowest(name, bound)}" for name, bound in wanted.build.items()]
        self.pip("install", *build)
        self.pip("install", "--no-build-isolation", project, *pins, *self.pins)

    def run(self, wanted: Bounds) -> None:
        """Install, and run the suite; what goes wrong becomes `problem`."""
        try:
            self.install(wanted)
            found = self.call(str(self.own_python), "-c", VERSIONS_OF, *SHOWN)
            self.versions = json.loads(found)
            self.call(str(self.own_python.with_name("charlm")), "--version")  # as installed, from another folder
            self.test()
        except Unusable as error:
            self.problem = str(error)

    def test(self) -> None:
        cache = self.folder / "cache"
        cache.mkdir(mode=0o700)
        command = [
            str(self.own_python),
            "-m",
            "pytest",
            "-n",
            "2",
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
            *self.arguments,
        ]
        begin, cpu = time.perf_counter(), _children_seconds()
        try:
            done = subprocess.run(
                command, cwd=self.folder / "checkout", env=environment(XDG_CACHE_HOME=str(cache)), text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
                timeout=60 * self.minutes,
            )  # fmt: skip
            self.output = done.stdout
        except subprocess.TimeoutExpired as error:
            self.output = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
            raise Unusable(f"not done after {self.minutes:g} minutes\n{self.output[-1000:]}") from None
        finally:
            self.seconds, self.cpu_seconds = time.perf_counter() - begin, _children_seconds() - cpu
        last = self.output.rstrip().rpartition("\n")[2]
        self.counts = {what: int(count) for count, what in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
        if done.returncode:
            raise Unusable(f"pytest: exit code {done.returncode}\n{_failures(self.output)}")

    def row(self) -> list[str]:
        versions = [self.versions.get(name, "-") for name in SHOWN]
        failed = self.counts.get("failed", 0) + self.counts.get("error", 0)
        counts = [self.counts.get("passed", 0), failed, self.counts.get("skipped", 0)]
        texts = [str(count) for count in counts] if self.counts else ["-", "NOT RUN", "-"]
        name = self.versions.get("python", Path(self.python).name)
        return [name, self.end, *versions, *texts, f"{self.seconds:.0f}", f"{self.cpu_seconds:.0f}"]


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _failures(output: str) -> str:
    """The names of the tests that failed; the end of the output if there are none."""
    lines = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "\n".join(lines[:60]) if lines else output[-3000:]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.versions", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--python", action="append", metavar="PATH", help="an interpreter (default: this one)")
    parser.add_argument("--versions", choices=("lowest", "newest"), action="append", help="one end only")
    parser.add_argument(
        "--pin", action="append", default=[], metavar="NAME==VERSION", help="a version from within the bounds"
    )
    parser.add_argument("--quick", action="store_true", help="the part of the suite that leans on others the most")
    parser.add_argument("--minutes", type=float, default=60, metavar="M", help="a run may take (default: 60)")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep what pytest printed")
    parser.add_argument("pytest", nargs="*", metavar="ARGUMENT", help="of pytest, after --")
    options = parser.parse_args(arguments)
    chosen = [f"tests/{name}.py" for name in QUICK] if options.quick else []
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored, by all children too
    wanted = bounds()
    print(f"{os.uname().sysname} {os.uname().machine}, {os.cpu_count()} cores\n\n{TABLE.head()}", flush=True)
    problems = []
    for python in options.python or [sys.executable]:
        for end in options.versions or ("lowest", "newest"):
            with tempfile.TemporaryDirectory(prefix="charlm-versions-") as folder:
                trial = Trial(python, end, Path(folder), options.pin, [*chosen, *options.pytest], options.minutes)
                trial.run(wanted)
            print(TABLE.line(trial.row()), flush=True)
            _keep(options.logs, trial)
            if trial.problem:
                problems.append(f"{python}, {end}: {trial.problem}")
    for problem in problems:
        print(f"\n{problem}")
    return 1 if problems else 0


def _keep(folder: Path | None, trial: Any) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{trial.versions.get('python', Path(trial.python).name)}-{trial.end}.txt"
        (folder / name).write_text(f"{trial.output}\n{trial.problem}\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
