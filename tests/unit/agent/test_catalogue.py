"""Which Services changed, and what is wanted of them now."""

from typing import Any

import msgspec

from agent.catalogue import Catalogue
from dataplane.nft.objects import Protocol
from proxy import objects, translate
from proxy.model import ServiceName
from proxy.translate import Slice, Translated
from tests.service_objects import service, slice_

WEB = ServiceName("shop", "web")
TCP = ("tcp", Protocol.TCP)


class Copies:
    """Reflectors' copies, and a catalogue that is told of them."""

    def __init__(self) -> None:
        self.services: dict[str, Translated | None] = {}
        self.slices: dict[str, Slice | None] = {}
        self.catalogue = Catalogue(self.services, self.slices)

    def put(self, item: dict[str, Any], now: float = 1.0) -> None:
        key = f"{item['metadata']['namespace']}/{item['metadata']['name']}"
        if "endpoints" in item:
            found = translate.slice_(msgspec.convert(item, objects.EndpointSlice))
            self.slices[key] = found
            self.catalogue.slice_changed(key, found, now)
        else:
            self.services[key] = translate.service(msgspec.convert(item, objects.Service))
            self.catalogue.service_changed(key, now)

    def drop(self, key: str) -> None:
        if self.slices.pop(key, None):
            self.catalogue.slice_changed(key, None, 1.0)
        if self.services.pop(key, None):
            self.catalogue.service_changed(key, 1.0)

    def endpoints(self, name: ServiceName = WEB) -> list[str] | None:
        wanted = self.catalogue.wanted(name, ())
        if wanted is None:
            return None
        return [str(each.address) for each in wanted.endpoints.get(TCP, ())]


def test_a_change_is_told_once_with_when_it_was_heard() -> None:
    at = Copies()
    at.put(service("web", "10.96.0.1"), now=5.0)
    at.put(slice_("web", "10.244.1.1"), now=6.0)

    assert at.catalogue.since == 5.0
    taken = at.catalogue.take()
    assert (taken.names, taken.services, taken.slices) == ({WEB}, 1, 1)
    assert at.catalogue.take().names == set()
    assert at.catalogue.since is None


def test_slices_of_a_service_come_together_in_any_order() -> None:
    at = Copies()
    at.put(slice_("web", "10.244.1.1"))
    assert at.endpoints() is None
    at.put(slice_("web", "10.244.1.2", suffix="b"))
    at.put(service("web", "10.96.0.1"))

    assert at.endpoints() == ["10.244.1.1", "10.244.1.2"]
    at.drop("shop/web-a")
    assert at.endpoints() == ["10.244.1.2"]
    at.drop("shop/web-b")
    assert at.endpoints() == []
    at.drop("shop/web")
    assert at.endpoints() is None


def test_a_slice_that_goes_over_to_another_service_changes_both() -> None:
    at = Copies()
    at.put(service("web", "10.96.0.1"))
    at.put(slice_("web", "10.244.1.1"))
    at.catalogue.take()
    moved = slice_("other", "10.244.1.1")
    moved["metadata"]["name"] = "web-a"

    at.put(moved)

    assert at.catalogue.take().names == {WEB, ServiceName("shop", "other")}
    assert at.endpoints() == []


def test_what_cannot_be_used_is_told_until_it_is_gone() -> None:
    at = Copies()
    at.put(service("web", "10.96.0.1", externalIPs=["127.0.0.1"]))
    at.put(slice_("web", "10.96.0.1"))

    assert at.endpoints() == []
    (troubles,) = at.catalogue.troubles().values()
    assert len(troubles) == 2
    at.drop("shop/web")
    assert at.endpoints() is None
    assert at.catalogue.troubles() == {}


def test_all_services_that_are_ours_have_a_name() -> None:
    at = Copies()
    at.put(service("web", "10.96.0.1"))

    assert at.catalogue.names() == [WEB]
