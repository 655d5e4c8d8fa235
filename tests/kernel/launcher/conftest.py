"""The launcher with a socket and a spool of each test's own."""

from pathlib import Path

import pytest

from tests.kernel.launcher.process import Launcher


@pytest.fixture
def launcher(binary: str, tmp_path: Path) -> Launcher:
    return Launcher(binary, tmp_path)
