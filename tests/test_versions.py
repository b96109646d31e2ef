"""pyproject.toml states the oldest versions of all that charlm stands on, and those that run here are none older."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.faults.versions import bounds, number, project


def test_the_bounds_are_stated_and_kept_to() -> None:
    """Each requirement has a lower bound and nothing else: `bounds` reads no other."""
    wanted = bounds()
    assert {"click", "numba", "numpy", "tqdm"} == set(wanted.run)
    for name, bound in wanted.installed.items():
        assert number(version(name)) >= number(bound), name
    assert number(platform.python_version()) >= number(wanted.python)


def test_the_pythons_are_named() -> None:
    """From the oldest on without a gap, and the oldest is the one that is required."""
    found = project()["classifiers"]
    prefix = "Programming Language :: Python :: 3."
    minors = [int(text.removeprefix(prefix)) for text in found if text.startswith(prefix)]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert f"3.{minors[0]}" == bounds().python


@pytest.mark.parametrize(
    "requirement", ["numpy", "numpy<3", "numpy>=2.0,<3", "numpy~=2.0", "numpy>=2.0; os_name == 'nt'"]
)
def test_any_other_requirement_is_refused(requirement: str, tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text(
        f'[build-system]\nrequires = ["setuptools>=1"]\n[project]\nrequires-python = ">=3.10"\n'
        f'dependencies = ["{requirement}"]\noptional-dependencies = {{ test = [] }}\n'
    )
    with pytest.raises(ValueError, match="is not NAME>=VERSION"):
        bounds(path)


def test_versions_compare_as_numbers() -> None:
    assert number("2.0") == number("2.0.0") == (2,)
    assert number("6.100.0") > number("6.99.9")
    assert number("77.0.3") > number("77.0rc1")
