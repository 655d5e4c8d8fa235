"""What the agent answers its operator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface, ip_network
from typing import Any

import pytest

from agent.admin import Status, answer, describe, find
from cni.args import Pod
from cni.attachment import host_name
from cni.spec import Spec, encode
from ipam.errors import StoreUnavailable
from ipam.leases import Attachment, Record, State
from ipam.ledger import Usage
from ipam.ranges import Range, RangeSet


def record(container_id: str, *addresses: str, network: str = "isthmus") -> Record:
    return Record(
        who=Attachment(network, container_id, "eth0"),
        boot_id="b",
        started_ns=1,
        sandbox=f"/run/netns/{container_id}",
        netns_cookie=7,
        addresses=tuple(ip_interface(address) for address in addresses),
    )


RANGES = RangeSet([Range.of(ip_network("10.66.0.0/28"))])
WEB = record("web1", "10.66.0.2/16", "fd66::2/64")
DB = record("db1", "10.66.0.3/16")


class FakeServices:
    def report(self, wanted: str = "") -> list[dict[str, object]]:
        return [{"name": name} for name in ("shop/web",) if wanted in ("", name)]

    def explain(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        if "source" not in asked:
            raise ValueError("no source")
        return {"source": asked["source"]}


@dataclass
class FakeNode:
    """A node that holds *held*, of which the sandboxes of *alive* live."""

    held: list[Record] = field(default_factory=lambda: [WEB, DB])
    alive: frozenset[Attachment] = frozenset()
    broken: bool = False
    services: "FakeServices | None" = None

    @property
    def leases(self) -> "FakeNode":
        return self

    def records(self) -> Sequence[Record]:
        return self.held

    def status(self) -> Status:
        return Status(version="1", pid=1, boot_id="b", uptime_s=2.0, serving=True)

    def usage(self) -> Sequence[Usage]:
        return [Usage(ranges=RANGES, size=9, held=2, idle=3, cooling=1)]

    def check(self) -> Sequence[str]:
        return ["something is odd"]

    def is_alive(self, record: Record) -> bool:
        return record.who in self.alive

    def release(self, who: Attachment) -> None:
        if self.broken:
            raise StoreUnavailable("disk full")
        self.held = [record for record in self.held if record.who != who]


def test_attachments_are_listed_in_the_order_of_their_keys() -> None:
    found = answer({"op": "attachments"}, FakeNode())["attachments"]

    assert [row["container_id"] for row in found] == ["db1", "web1"]
    assert found[1]["addresses"] == ["10.66.0.2/16", "fd66::2/64"]
    assert found[1]["state"] == State.HELD
    assert found[1]["host_side"] == host_name(WEB.who)


def test_pods_are_named_and_a_spec_that_cannot_be_read_hides_nothing_else() -> None:
    pod = encode(Spec(pod=Pod(namespace="shop", name="web"), link=False))
    rows = [describe(replace(WEB, spec=spec)) for spec in (pod, "{", "{}")]

    assert [row["pod"] for row in rows] == ["shop/web", "", ""]
    assert rows[0]["host_side"] == ""
    assert all(row["addresses"] == ["10.66.0.2/16", "fd66::2/64"] for row in rows)


def test_show_adds_how_full_the_ranges_are() -> None:
    found = answer({"op": "ipam-show"}, FakeNode())

    assert len(found["attachments"]) == 2
    assert found["usage"] == [
        {"ranges": str(RANGES), "size": 9, "held": 2, "cooling": 1, "free": 7}
    ]


def test_status_and_check_pass_on_what_the_node_says() -> None:
    assert answer({"op": "status"}, FakeNode())["status"]["serving"] is True
    assert answer({"op": "ipam-check"}, FakeNode()) == {"problems": ["something is odd"]}


@pytest.mark.parametrize("op", [{}, {"op": "reboot"}, {"op": ["status"]}, {"op": None}])
def test_an_unknown_operation_is_refused_with_those_that_are_known(op: dict[str, object]) -> None:
    error = answer(op, FakeNode())["error"]

    assert "ipam-release" in error


@pytest.mark.parametrize(
    "wanted",
    ["isthmus/web1/eth0", "10.66.0.2", "10.66.0.2/16", "fd66:0::2", "web", "isthmus/we/eth0"],
)
def test_an_attachment_is_released_by_key_address_or_container(wanted: str) -> None:
    node = FakeNode()

    released = answer({"op": "ipam-release", "wanted": wanted}, node)["released"]

    assert released["container_id"] == "web1"
    assert node.held == [DB]


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "10.66.0.9",
        "nobody",
        "isthmus/web1/eth1",
        "isthmus/we/eth1",
        "isthmus//eth0",
        "i/we/eth0",
    ],
)
def test_what_names_no_attachment_is_refused(wanted: str) -> None:
    node = FakeNode()

    error = answer({"op": "ipam-release", "wanted": wanted}, node)["error"]

    assert "no attachment" in error
    assert len(node.held) == 2


def test_an_attachment_whose_sandbox_lives_is_released_by_force_alone() -> None:
    node = FakeNode(alive=frozenset({WEB.who}))
    op = {"op": "ipam-release", "wanted": "web1"}

    refusal = answer(op, node)
    forced = answer(op | {"force": True}, node)

    assert "alive" in refusal["error"]
    assert forced["released"]["container_id"] == "web1"


def test_a_store_that_refuses_is_told_and_not_raised() -> None:
    found = answer({"op": "ipam-release", "wanted": "web1"}, FakeNode(broken=True))

    assert "disk full" in found["error"]


def test_a_name_that_fits_several_attachments_lists_them() -> None:
    with pytest.raises(LookupError, match=r"isthmus/web1/eth0, isthmus/web2/eth0"):
        find([WEB, record("web2", "10.66.0.4/16")], "web")


def test_a_shortened_key_that_fits_several_attachments_lists_them() -> None:
    with pytest.raises(LookupError, match=r"isthmus/web1/eth0, isthmus/web2/eth0"):
        find([WEB, record("web2", "10.66.0.4/16")], "isthmus/web/eth0")


def test_a_whole_key_is_clear_though_it_starts_another() -> None:
    assert find([record("web12", "10.66.0.4/16"), WEB], "isthmus/web1/eth0") == WEB


def test_a_packet_is_explained_or_it_is_said_what_is_wrong() -> None:
    node = FakeNode(services=FakeServices())

    asked = {"op": "explain", "source": "10.0.0.1"}
    assert answer(asked, node) == {"explained": {"source": "10.0.0.1"}}
    assert answer({"op": "explain"}, node) == {"error": "no source"}
    assert "[services]" in answer(asked, FakeNode())["error"]


def test_services_are_told_where_this_agent_translates_them() -> None:
    node = FakeNode(services=FakeServices())

    assert answer({"op": "services"}, node) == {"services": [{"name": "shop/web"}]}
    assert "NAMESPACE/NAME" in answer({"op": "services", "wanted": "db"}, node)["error"]
    assert "[services]" in answer({"op": "services"}, FakeNode())["error"]
