from dataclasses import replace
from ipaddress import ip_address

from ipam.audit_services import check, rows
from ipam.cluster import Config, ServiceRecord
from ipam.keys import write
from ipam.kv import Listing
from ipam.view import View
from tests.unit.ipam.test_load_balancers import (
    CONFIG,
    DNS,
    KEYS,
    WEB,
    _entry,
    held,
    view_of,
)


def found(view: View) -> list[tuple[str, str, str]]:
    return [(one.kind.value, one.subject, one.text) for one in check(view)]


def test_what_fits_together_is_no_finding() -> None:
    assert found(view_of(held("192.0.2.1", DNS, WEB, sharing="k"))) == []


def test_an_address_of_no_pool_and_one_of_two_services_are_told() -> None:
    clashing = replace(DNS, ports=("TCP/80",))

    assert found(view_of(held("192.0.2.1", WEB), config=Config())) == [
        ("orphan", "192.0.2.1", "of pool four, which does not have it")
    ]
    assert found(view_of(held("192.0.2.1", clashing, WEB))) == [
        ("duplicate", "192.0.2.1", "held by shop/dns and shop/web, without a key"),
        ("duplicate", "192.0.2.1", "TCP/80 is both shop/dns's and shop/web's"),
    ]


def test_records_that_do_not_say_the_same_are_told_from_both_sides() -> None:
    record, service = held("192.0.2.1", WEB), ServiceRecord("shop/dns", (ip_address("192.0.2.2"),))
    contents = {
        KEYS.config: write(CONFIG),
        KEYS.address(record.address): write(record),
        KEYS.service("shop/dns"): write(service),
    }
    view = View(KEYS)
    view.replace(Listing(tuple(map(_entry, contents.items())), 7))

    assert found(view) == [
        ("orphan", "192.0.2.1", "held by Service shop/web, whose record does not say so"),
        ("orphan", "shop/dns", "has 192.0.2.2, whose record does not say so"),
    ]


def test_rows_are_sorted_by_address() -> None:
    view = view_of(held("192.0.2.3", WEB), held("192.0.2.1", DNS, sharing="k"))

    assert rows(view) == [
        {
            "address": "192.0.2.1",
            "pool": "four",
            "sharing": "k",
            "services": {"shop/dns": ["UDP/53"]},
        },
        {
            "address": "192.0.2.3",
            "pool": "four",
            "sharing": "",
            "services": {"shop/web": ["TCP/80"]},
        },
    ]
