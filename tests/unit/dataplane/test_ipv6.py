"""Settings of one interface, in a /proc/sys of the test's own."""

from pathlib import Path

import pytest

from dataplane import ipv6
from dataplane.sysctl import SysctlRefused, Sysctls


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    found = tmp_path / "net/ipv6/conf/eth0"
    found.mkdir(parents=True)
    for name in ("disable_ipv6", "accept_ra"):
        (found / name).write_text("1\n")
    (found / "keep_addr_on_down").write_text("0\n")
    return found


def value(path: Path) -> str:
    return path.read_text().strip()


def test_an_interface_takes_and_keeps_addresses(tmp_path: Path, settings: Path) -> None:
    ipv6.allow("eth0", Sysctls(root=tmp_path))

    assert value(settings / "disable_ipv6") == "0"
    assert value(settings / "keep_addr_on_down") == "1"


def test_a_kernel_that_cannot_keep_them_will_do(tmp_path: Path, settings: Path) -> None:
    (settings / "keep_addr_on_down").unlink()

    ipv6.allow("eth0", Sysctls(root=tmp_path))

    assert value(settings / "disable_ipv6") == "0"


def test_a_kernel_without_ipv6_will_not(tmp_path: Path) -> None:
    with pytest.raises(SysctlRefused, match="disable_ipv6"):
        ipv6.allow("eth0", Sysctls(root=tmp_path))


def test_no_pod_can_advertise_itself_as_router(tmp_path: Path, settings: Path) -> None:
    ipv6.refuse_router_advertisements("eth0", Sysctls(root=tmp_path))

    assert value(settings / "accept_ra") == "0"


def test_where_that_cannot_be_set_it_is_left(tmp_path: Path) -> None:
    ipv6.refuse_router_advertisements("eth0", Sysctls(root=tmp_path))

    assert list(tmp_path.iterdir()) == []
