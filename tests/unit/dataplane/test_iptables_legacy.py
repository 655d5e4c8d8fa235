"""What of iptables-legacy can be told without a table."""

from dataplane.iptables_legacy import has_chain
from dataplane.nft.objects import Family


def test_a_table_that_is_not_there_has_no_chain_and_is_not_made() -> None:
    assert not has_chain(Family.IP, "no-such-table", "KUBE-SERVICES")
    assert not has_chain(Family.IP6, "no-such-table", "KUBE-SERVICES")
