"""One version, in two places."""

import tomllib
from pathlib import Path

from agent.version import VERSION

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_the_program_says_the_version_it_is_packaged_as() -> None:
    packaged = tomllib.loads(PYPROJECT.read_text())["project"]["version"]

    assert packaged == VERSION
