"""What a store's refusals say; the protocol itself is held by kv_contract."""

from ipam.kv import Compacted, Replaced


def test_compaction_says_from_where_on_the_store_remembers() -> None:
    error = Compacted(7)

    assert (str(error), error.oldest) == ("compacted up to revision 7", 7)


def test_replaced_store_is_handled_as_a_gap_and_says_where_it_is() -> None:
    error = Replaced(7)

    assert isinstance(error, Compacted)
    assert (str(error), error.oldest) == ("the store was replaced: it is at revision 7", 7)
