"""The messages of one attachment, in order; that they work is for tests/kernel."""

import errno
import threading
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from dataplane import rtnl
from dataplane.errors import DataplaneError, NetlinkError
from dataplane.links import InterfaceExists, LinkRemover, Links, exists, settle
from dataplane.model import Bridge, BridgePort, Route, Sandbox, Veth
from dataplane.netns import Sandbox as OpenSandbox
from tests.unit.dataplane.fakes import (
    FakeNetlink,
    address_payload,
    kind_of,
    link_payload,
    route_payload,
)

PATIENCE_S = 10.0
VETH = Veth(
    host_name="isth-none",
    host_mac="02:00:00:00:00:0a",
    pod_name="eth0",
    pod_mac="02:00:00:00:00:0b",
    mtu=1400,
    alias="isthmus/1 b 7 shop c1 eth0 10.9.0.2/24",
)
DEFAULT = Route(dst=ip_network("0.0.0.0/0"), via=ip_address("10.9.0.1"))
ROUTED = Sandbox(
    veth=VETH,
    addresses=(ip_interface("10.9.0.2/32"),),
    pod_routes=(DEFAULT,),
    host_addresses=(ip_interface("169.254.1.1/32"),),
    host_routes=(ip_network("10.9.0.2/32"),),
)
BRIDGED = Sandbox(
    veth=VETH,
    bridge=Bridge(name="no-such-br", mac="02:00:00:00:00:0c"),
    port=BridgePort(hairpin=True),
    addresses=(ip_interface("10.9.0.2/24"),),
    pod_routes=(DEFAULT,),
)


class Scene:
    """A host and one sandbox, with the pair between them."""

    def __init__(self) -> None:
        self.host, self.inside = FakeNetlink(), FakeNetlink()
        self.host.links = [
            link_payload(4, "isth-none", kind="veth", peer=5, up=False),
            link_payload(7, "no-such-br", kind="bridge"),
        ]
        self.inside.links = [link_payload(5, "eth0", kind="veth", peer=4)]
        self.pod = OpenSandbox("/n", 99, self.inside, 11)  # type: ignore[arg-type]
        self.links = Links(lambda: self.host)  # type: ignore[arg-type,return-value]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_pair_is_one_message_and_the_pod_side_one_datagram(scene: Scene) -> None:
    scene.links.attach(ROUTED, scene.pod)

    assert scene.host.sent == [rtnl.new_veth(VETH, 99, 0)]
    assert scene.inside.sent == [
        rtnl.new_address(5, ip_interface("10.9.0.2/32")),
        rtnl.set_link(5, flags=rtnl.UP),
        rtnl.new_route(5, DEFAULT),
    ]


def test_the_host_side_is_born_on_its_bridge(scene: Scene) -> None:
    scene.links.attach(BRIDGED, scene.pod)

    assert scene.host.sent[-1] == rtnl.new_veth(VETH, 99, 7)


def test_an_interface_that_is_not_to_be_used_is_not_brought_up(scene: Scene) -> None:
    scene.links.attach(Sandbox(veth=VETH, enabled=False), scene.pod)

    assert scene.inside.sent == []


def test_the_host_side_of_a_routed_pod_opens_with_its_alias_last(scene: Scene) -> None:
    scene.links.complete(ROUTED, scene.pod)

    assert scene.host.sent == [
        rtnl.without_link_local(4),
        rtnl.new_address(4, ip_interface("169.254.1.1/32"), scope=rtnl.SCOPE_HOST),
        rtnl.set_link(4, flags=rtnl.UP),
        rtnl.replace_host_route(4, ip_network("10.9.0.2/32")),
        rtnl.finish_link(4, VETH.alias),
    ]


def test_the_host_side_on_a_bridge_opens_with_its_alias_last(scene: Scene) -> None:
    scene.links.complete(BRIDGED, scene.pod)

    assert scene.host.sent == [
        rtnl.set_port(4, BRIDGED.port),
        rtnl.without_link_local(4),
        rtnl.finish_link(4, VETH.alias),
    ]


def refuse_once(kind: int, number: int) -> object:
    left = [number]
    return lambda message: left.pop() if kind_of(message) == kind and left else 0


def test_an_interface_of_somebody_else_is_not_touched(scene: Scene) -> None:
    scene.inside.links = [link_payload(8, "eth0", kind="veth", peer=77)]
    scene.host.refuse = refuse_once(rtnl.NEWLINK, errno.EEXIST)  # type: ignore[assignment]

    with pytest.raises(InterfaceExists) as caught:
        scene.links.attach(ROUTED, scene.pod)

    assert str(caught.value) == str(exists(VETH))
    assert rtnl.DELLINK not in scene.host.kinds


def test_a_complete_pair_of_ours_is_not_touched(scene: Scene) -> None:
    scene.host.links = [link_payload(4, "isth-none", kind="veth", peer=5, alias="isthmus/1 …")]
    scene.host.refuse = refuse_once(rtnl.NEWLINK, errno.EEXIST)  # type: ignore[assignment]

    with pytest.raises(InterfaceExists):
        scene.links.attach(ROUTED, scene.pod)

    assert rtnl.DELLINK not in scene.host.kinds


def test_a_half_made_pair_of_ours_makes_way(scene: Scene) -> None:
    scene.host.refuse = refuse_once(rtnl.NEWLINK, errno.EEXIST)  # type: ignore[assignment]

    scene.links.attach(ROUTED, scene.pod)

    assert scene.host.sent == [
        rtnl.new_veth(VETH, 99, 0),
        rtnl.condemn_link("isth-none"),
        rtnl.delete_link("isth-none"),
        rtnl.new_veth(VETH, 99, 0),
    ]


def test_a_bridge_that_went_since_we_looked_is_looked_for_again(scene: Scene) -> None:
    scene.links.ensure_bridge(BRIDGED.bridge)  # type: ignore[arg-type]
    looked = scene.host.asked
    scene.host.refuse = refuse_once(rtnl.NEWLINK, errno.ENODEV)  # type: ignore[assignment]

    scene.links.attach(BRIDGED, scene.pod)

    assert scene.host.asked > looked
    assert scene.host.sent[-1] == rtnl.new_veth(VETH, 99, 7)


def test_other_refusals_of_a_pair_are_passed_on(scene: Scene) -> None:
    scene.host.refuse = refuse_once(rtnl.NEWLINK, errno.ENOMEM)  # type: ignore[assignment]

    with pytest.raises(NetlinkError, match="Cannot allocate memory"):
        scene.links.attach(ROUTED, scene.pod)


def test_a_route_that_is_there_is_as_good_as_ours_but_an_address_is_not(scene: Scene) -> None:
    scene.inside.refuse = refuse_once(rtnl.NEWROUTE, errno.EEXIST)  # type: ignore[assignment]
    scene.links.attach(ROUTED, scene.pod)
    scene.inside.refuse = refuse_once(rtnl.NEWADDR, errno.EEXIST)  # type: ignore[assignment]

    with pytest.raises(NetlinkError, match="File exists"):
        scene.links.attach(ROUTED, scene.pod)


def test_a_route_that_the_kernel_refuses_is_named(scene: Scene) -> None:
    scene.inside.refuse = refuse_once(rtnl.NEWROUTE, errno.ENETUNREACH)  # type: ignore[assignment]

    with pytest.raises(DataplaneError) as caught:
        scene.links.attach(ROUTED, scene.pod)

    assert str(caught.value) == (
        "route 0.0.0.0/0 via 10.9.0.1 is refused: Network is unreachable; "
        "a gateway must be in a subnet of the interface"
    )


def test_what_is_absent_is_found_as_nothing(scene: Scene) -> None:
    assert scene.links.find("no-such-link") is None
    assert scene.links.observe_pod(scene.pod, "net1") is None


def test_addresses_and_host_routes_are_those_asked_for(scene: Scene) -> None:
    scene.host.addresses = [
        address_payload(4, ip_interface("10.0.0.1/24")),
        address_payload(7, ip_interface("10.9.0.1/24")),
    ]
    ours, theirs = ip_network("10.9.0.2/32"), ip_network("10.9.0.3/32")
    scene.host.routes = [
        route_payload(ours, (None, 4), protocol=rtnl.ROUTE_PROTOCOL),
        route_payload(ip_network("fd09::2/128"), (None, 9), protocol=rtnl.ROUTE_PROTOCOL),
        route_payload(theirs, (None, 4)),
    ]

    assert scene.links.addresses(7) == [ip_interface("10.9.0.1/24")]
    assert scene.links.host_routes() == {ours: 4, ip_network("fd09::2/128"): 9}
    assert scene.links.host_routes(4) == {ours: 4}
    assert [link.name for link in scene.links.all()] == ["isth-none", "no-such-br"]


def test_the_pod_side_is_seen_with_what_is_its_own(scene: Scene) -> None:
    scene.inside.addresses = [
        address_payload(1, ip_interface("127.0.0.1/8")),
        address_payload(5, ip_interface("10.9.0.2/24")),
    ]
    scene.inside.routes = [
        route_payload(ip_network("0.0.0.0/0"), (ip_address("10.9.0.1"), 5)),
        route_payload(ip_network("::/0"), (ip_address("fe80::1"), 1)),
    ]

    found = scene.links.observe_pod(scene.pod, "eth0")

    assert found is not None
    assert (found.link.index, found.link.peer) == (5, 4)
    assert [one.address for one in found.addresses] == [ip_interface("10.9.0.2/24")]
    assert [one.via for one in found.routes] == [ip_address("10.9.0.1")]


def test_repair_puts_a_port_back_and_takes_what_is_there_as_right(scene: Scene) -> None:
    scene.links.repair(BRIDGED)

    assert scene.host.sent[-4:] == [
        rtnl.set_link(4, master=7),
        rtnl.set_port(4, BRIDGED.port),
        rtnl.without_link_local(4),
        rtnl.finish_link(4, VETH.alias),
    ]


def test_repair_tolerates_addresses_that_are_there(scene: Scene) -> None:
    scene.host.refuse = refuse_once(rtnl.NEWADDR, errno.EEXIST)  # type: ignore[assignment]

    scene.links.repair(ROUTED)

    assert rtnl.replace_host_route(4, ip_network("10.9.0.2/32")) in scene.host.sent


def test_one_link_is_condemned_and_deleted_by_name(scene: Scene) -> None:
    scene.links.detach("isth-none")

    assert scene.host.sent == [rtnl.condemn_link("isth-none"), rtnl.delete_link("isth-none")]


def test_deleting_what_is_absent_is_fine(scene: Scene) -> None:
    scene.host.refuse = lambda message: errno.ENODEV

    scene.links.detach("isth-none")

    assert len(scene.host.sent) == 2


class SlowNetlink(FakeNetlink):
    """Lets the first deletion wait until the test says go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def transact(self, messages, *, tolerate=lambda _: False) -> None:  # type: ignore[no-untyped-def]
        self.begun.set()
        assert self.go.wait(PATIENCE_S)
        super().transact(messages, tolerate=tolerate)


class SharedRemoval:
    """One deletion under way, and two that come meanwhile."""

    def __init__(self, kernel: SlowNetlink) -> None:
        self.kernel = kernel
        self.remover = LinkRemover(lambda: kernel)  # type: ignore[arg-type,return-value]
        self.failures: list[Exception] = []

    def run(self) -> None:
        first = self.start("isth-a")
        assert self.kernel.begun.wait(PATIENCE_S)
        others = [self.start(name) for name in ("isth-b", "isth-c")]
        waiting = threading.Event()
        while len(self.remover._waiting) < 2:
            waiting.wait(0.001)
        self.kernel.go.set()
        for thread in (first, *others):
            thread.join(PATIENCE_S)

    def start(self, name: str) -> threading.Thread:
        thread = threading.Thread(target=self.remove, args=[name])
        thread.start()
        return thread

    def remove(self, name: str) -> None:
        try:
            self.remover.remove(name)
        except DataplaneError as exc:
            self.failures.append(exc)


def test_deletions_that_come_together_are_one() -> None:
    kernel = SlowNetlink()
    kernel.links = [link_payload(4, "isth-b", group=rtnl.DELETE_GROUP)]

    SharedRemoval(kernel).run()

    assert kernel.sent == [
        rtnl.condemn_link("isth-a"),
        rtnl.delete_link("isth-a"),
        rtnl.condemn_link("isth-b"),
        rtnl.condemn_link("isth-c"),
        rtnl.delete_group(),
    ]


def test_after_a_shared_deletion_the_next_waits_for_those_still_coming() -> None:
    shared = SharedRemoval(SlowNetlink())
    shared.remover = LinkRemover(lambda: shared.kernel, pause_s=0.2)  # type: ignore[arg-type,return-value]
    shared.run()
    shared.kernel.sent.clear()

    threads = [shared.start(name) for name in ("isth-d", "isth-e")]
    for thread in threads:
        thread.join(PATIENCE_S)

    assert shared.kernel.sent[-1] == rtnl.delete_group()


def test_a_group_that_holds_a_foreign_link_is_not_deleted_whole() -> None:
    kernel = SlowNetlink()
    kernel.links = [link_payload(4, "theirs", group=rtnl.DELETE_GROUP)]

    SharedRemoval(kernel).run()

    assert kernel.sent[-2:] == [rtnl.delete_link("isth-b"), rtnl.delete_link("isth-c")]


def test_a_refused_deletion_is_told_to_everybody_who_waited_for_it() -> None:
    kernel, shared = SlowNetlink(), None
    kernel.refuse = lambda message: errno.EPERM
    shared = SharedRemoval(kernel)

    shared.run()

    assert [str(failure) for failure in shared.failures] == [
        "netlink message: Operation not permitted"
    ] * 3


def test_duplicate_address_detection_is_waited_for(scene: Scene) -> None:
    tentative = address_payload(5, ip_interface("fd09::2/64"), flags=0x40)
    other = address_payload(6, ip_interface("fd09::3/64"), flags=0x40)
    done = address_payload(5, ip_interface("fd09::2/64"))
    answers = [[tentative, other], [tentative, other], [done, other]]
    scene.inside.dump = lambda request: [  # type: ignore[method-assign]
        (20, memoryview(payload)) for payload in answers.pop(0)
    ]

    settle(scene.pod, 5)

    assert answers == []


def test_a_duplicate_address_is_named(scene: Scene) -> None:
    scene.inside.addresses = [address_payload(5, ip_interface("fd09::2/64"), flags=0x48)]

    with pytest.raises(DataplaneError, match="duplicate address detected: fd09::2/64"):
        settle(scene.pod, 5)


def test_detection_that_does_not_end_is_given_up(scene: Scene) -> None:
    scene.inside.addresses = [address_payload(5, ip_interface("fd09::2/64"), flags=0x40)]

    with pytest.raises(DataplaneError, match="did not end"):
        settle(scene.pod, 5, timeout=0)
