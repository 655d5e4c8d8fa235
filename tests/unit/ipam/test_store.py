"""The store that keeps nothing, by the contract of all stores."""

import pytest

from ipam.errors import StoreUnavailable
from ipam.store import MemoryStore, Put, Snapshot, UnusableStore
from tests.unit.ipam.contract import ONE, StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


def test_unusable_store_is_empty_and_gives_its_reason() -> None:
    store = UnusableStore("leases.db is corrupt")

    assert store.load() == Snapshot()
    with pytest.raises(StoreUnavailable, match=r"leases\.db is corrupt"):
        store.commit([Put(ONE)])
    with pytest.raises(StoreUnavailable, match=r"leases\.db is corrupt"):
        store.probe()
