"""What unit tests of more than one package share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cni.fakes import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()
