"""Uplinks and forwarding of a host of values."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from dataplane.host import Host, Uplink, observe_uplinks
from dataplane.sysctl import SysctlRefused, Sysctls
from tests.unit.dataplane.fakes import FakeNetlink, link_payload, route_payload

ANY4, ANY6 = ip_network("0.0.0.0/0"), ip_network("::/0")
GATEWAY4, GATEWAY6 = ip_address("192.0.2.1"), ip_address("fe80::1")


@pytest.fixture
def kernel() -> FakeNetlink:
    made = FakeNetlink()
    made.links = [
        link_payload(2, "up0", mtu=1500),
        link_payload(3, "up1", mtu=1450),
        link_payload(4, "up2", mtu=1280),
    ]
    return made


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    for name, value in (
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv6/conf/all/forwarding", "0"),
        ("net/ipv6/conf/up0/accept_ra", "1"),
        ("net/ipv6/conf/up1/accept_ra", "1"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return tmp_path


def host(kernel: FakeNetlink, proc: Path | None = None) -> Host:
    sysctls = Sysctls(root=proc) if proc else Sysctls()
    return Host(sysctls, lambda: kernel)  # type: ignore[arg-type,return-value]


def test_uplinks_are_the_links_of_default_routes(kernel: FakeNetlink) -> None:
    kernel.routes = [
        route_payload(ANY4, (GATEWAY4, 2)),
        route_payload(ip_network("10.0.0.0/8"), (GATEWAY4, 4)),
        route_payload(ANY6, (GATEWAY6, 3), protocol=9),
    ]

    assert observe_uplinks(kernel) == (  # type: ignore[arg-type]
        Uplink("up0", 1500, False),
        Uplink("up1", 1450, True),
    )


def test_every_next_hop_of_a_default_route_is_an_uplink(kernel: FakeNetlink) -> None:
    kernel.routes = [route_payload(ANY4, (GATEWAY4, 2), (GATEWAY4, 3))]

    assert [uplink.name for uplink in host(kernel).uplinks()] == ["up0", "up1"]


def test_other_tables_and_refusing_routes_are_no_uplinks(kernel: FakeNetlink) -> None:
    unreachable = 7
    kernel.routes = [
        route_payload(ANY4, (GATEWAY4, 2), table=100),
        route_payload(ANY6, (None, 1), kind=unreachable),
    ]

    assert host(kernel).uplinks() == ()


def test_the_narrowest_uplink_gives_the_mtu(kernel: FakeNetlink) -> None:
    kernel.routes = [route_payload(ANY4, (GATEWAY4, 2)), route_payload(ANY6, (GATEWAY6, 3))]

    assert host(kernel).uplink_mtu() == 1450


def test_without_an_uplink_the_kernels_default_holds(kernel: FakeNetlink) -> None:
    assert host(kernel).uplink_mtu() == 0


def test_uplinks_are_looked_at_again_only_when_something_changed(kernel: FakeNetlink) -> None:
    kernel.routes = [route_payload(ANY4, (GATEWAY4, 2))]
    made = host(kernel)
    before = made.uplink_mtu()
    kernel.routes = [route_payload(ANY4, (GATEWAY4, 3))]
    kept = made.uplink_mtu()

    made.forget()

    assert (before, kept, made.uplink_mtu()) == (1500, 1500, 1450)


def test_what_was_found_before_a_change_is_not_remembered_after_it(kernel: FakeNetlink) -> None:
    kernel.routes = [route_payload(ANY4, (GATEWAY4, 2))]

    def changing() -> FakeNetlink:
        if not changed:
            changed.append(True)
            found.forget()
        return kernel

    changed: list[bool] = []
    found = Host(Sysctls(), changing)  # type: ignore[arg-type]
    found.uplinks()
    kernel.routes = [route_payload(ANY4, (GATEWAY4, 3))]

    assert found.uplink_mtu() == 1450


def test_no_pair_is_made_wider_than_it_can_be(kernel: FakeNetlink) -> None:
    kernel.links.append(link_payload(1, "lo", mtu=65536))
    kernel.routes = [route_payload(ANY4, (None, 1))]

    assert host(kernel).uplink_mtu() == 65535


def test_the_way_to_other_nodes_pods_may_be_narrower_than_the_uplinks(kernel: FakeNetlink) -> None:
    made = host(kernel)
    made.limit_mtu(1400)
    without_uplink = made.uplink_mtu()
    kernel.routes = [route_payload(ANY4, (GATEWAY4, 3))]
    made.forget()
    narrower = made.uplink_mtu()
    made.limit_mtu(9000)

    assert (without_uplink, narrower, made.uplink_mtu()) == (1400, 1400, 1450)


def test_a_default_route_that_names_no_link_is_passed_over(kernel: FakeNetlink) -> None:
    kernel.routes = [route_payload(ANY4, (None, 0)), route_payload(ANY4, (GATEWAY4, 3))]

    assert host(kernel).uplink_mtu() == 1450


def test_an_uplink_that_has_gone_meanwhile_is_no_uplink(kernel: FakeNetlink) -> None:
    kernel.routes = [route_payload(ANY4, (GATEWAY4, 99)), route_payload(ANY6, (GATEWAY6, 3))]

    assert [uplink.name for uplink in host(kernel).uplinks()] == ["up1"]


def test_only_the_families_asked_for_are_forwarded(kernel: FakeNetlink, proc: Path) -> None:
    host(kernel, proc).enable_forwarding(frozenset({4}))

    assert (proc / "net/ipv4/ip_forward").read_text().strip() == "1"
    assert (proc / "net/ipv6/conf/all/forwarding").read_text().strip() == "0"


def test_an_uplink_by_advertisement_goes_on_listening(kernel: FakeNetlink, proc: Path) -> None:
    kernel.routes = [
        route_payload(ANY6, (GATEWAY6, 2)),
        route_payload(ANY6, (GATEWAY6, 3), protocol=9),
    ]

    host(kernel, proc).enable_forwarding(frozenset({6}))

    assert (proc / "net/ipv6/conf/up0/accept_ra").read_text().strip() == "1"
    assert (proc / "net/ipv6/conf/up1/accept_ra").read_text().strip() == "2"
    assert (proc / "net/ipv6/conf/all/forwarding").read_text().strip() == "1"


def test_forwarding_is_looked_at_once_until_something_changed(
    kernel: FakeNetlink, proc: Path
) -> None:
    made, setting = host(kernel, proc), proc / "net/ipv4/ip_forward"
    made.enable_forwarding(frozenset({4}))
    setting.write_text("0\n")
    made.enable_forwarding(frozenset({4}))
    kept = setting.read_text().strip()

    made.forget()
    made.enable_forwarding(frozenset({4}))

    assert (kept, setting.read_text().strip()) == ("0", "1")


def test_a_refused_setting_is_tried_again(kernel: FakeNetlink, tmp_path: Path) -> None:
    made = host(kernel, tmp_path)

    for _ in range(2):
        with pytest.raises(SysctlRefused, match="ip_forward"):
            made.enable_forwarding(frozenset({4}))
