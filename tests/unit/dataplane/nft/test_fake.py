import pytest

from dataplane.errors import DataplaneError
from tests.unit.dataplane.nft.contract import A, B, Table, TableContract
from tests.unit.dataplane.nft.fake import FakeTable


class TestFakeTable(TableContract):
    @pytest.fixture
    def table(self) -> Table:
        return FakeTable()


def test_a_failure_prevents_the_change_and_a_late_one_does_not() -> None:
    table = FakeTable()
    table.failures, table.late = [DataplaneError("early")], [DataplaneError("late")]

    with pytest.raises(DataplaneError, match="early"):
        table.replace([A])
    after_early = table.observe()
    with pytest.raises(DataplaneError, match="late"):
        table.replace([B])

    assert after_early is None
    assert table.observe() == {B}
    assert table.transactions == 1
