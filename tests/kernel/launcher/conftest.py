"""The binary under test, with a socket and a spool of each test's own.

It is a test build whose deadlines are a tenth; ISTHMUS_TEST_LAUNCHER names another, which is
how the same tests run against the one with sanitizers.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel.launcher.process import Launcher

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def binary() -> str:
    given = os.environ.get("ISTHMUS_TEST_LAUNCHER")
    if given:
        return given
    subprocess.run(["make", "-sC", ROOT / "cni/launcher", "test-build"], check=True, timeout=120)
    return str(ROOT / "build/launcher/isthmus-launcher-test")


@pytest.fixture
def launcher(binary: str, tmp_path: Path) -> Launcher:
    return Launcher(binary, tmp_path)
