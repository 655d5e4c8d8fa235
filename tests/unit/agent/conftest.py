"""The reconciler whose parts have a test file each."""

from pathlib import Path

import pytest

from agent.reconciler import Reconciler
from agent.search import Search
from dataplane.survey import Surveyed
from tests.unit.agent.reconciling import GRACE_S
from tests.unit.cni.fakes import World


@pytest.fixture
def there() -> list[Surveyed]:
    """What a look into all namespaces finds."""
    return []


@pytest.fixture
def reconciler(world: World, there: list[Surveyed], tmp_path: Path) -> Reconciler:
    return Reconciler(
        world.node,
        world.leases,
        world.kernel,  # type: ignore[arg-type]
        world.kernel.resync,
        GRACE_S,
        Search(tmp_path / "lost", lambda: list(there)),
    )


@pytest.fixture
def lost(reconciler: Reconciler, there: list[Surveyed]) -> list[Surveyed]:
    """The store was lost; what a look into the namespaces finds is in the list."""
    reconciler.search.owe()
    return there
