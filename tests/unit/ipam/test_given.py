from ipaddress import ip_address, ip_network

from ipam.cluster import AddressRecord, Holder, ServiceRecord
from ipam.given import Given

ADDRESS = ip_address("192.0.2.1")
RECORD = AddressRecord(
    address=ADDRESS, pool="lb", sharing="", holders=(Holder("shop/web", ("TCP/80",)),)
)


def test_an_address_is_taken_when_it_is_learnt_and_free_when_it_is_forgotten() -> None:
    given = Given()

    assert given.learn(RECORD) == (ip_network("192.0.2.1/32"),)
    assert given.has(ip_network("192.0.2.1/32"))
    assert not given.has(ip_network("192.0.2.0/31"))
    assert given.forget(RECORD) == (ip_network("192.0.2.1/32"),)
    assert not given.has(ip_network("192.0.2.1/32"))


def test_a_services_record_takes_nothing_by_itself() -> None:
    given, record = Given(), ServiceRecord("shop/web", (ADDRESS,))

    assert given.learn(record) == ()
    assert given.services == {"shop/web": record}
    assert given.forget(record) == ()
    assert given.services == {}
