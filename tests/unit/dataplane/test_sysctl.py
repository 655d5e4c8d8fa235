import json
from pathlib import Path

import pytest

from dataplane.sysctl import FileLedger, SysctlRefused, Sysctls

V4, V6 = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"
RA = "net/ipv6/conf/eth0.5/accept_ra"


class Proc:
    """A /proc/sys of files, and what has been written to it."""

    def __init__(self, root: Path, values: dict[str, str]) -> None:
        self.root = root
        for name, value in values.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{value}\n")

    def __getitem__(self, name: str) -> str:
        return (self.root / name).read_text().strip()


class Remembered(dict[str, str]):
    """A ledger in memory; keeps the order of writing."""

    def record(self, name: str, former: str) -> None:
        self.setdefault(name, former)


class ReadOnly(Sysctls):
    """As on a read-only /proc/sys, which root's own tests cannot make of files."""

    def _open(self, name: str) -> int:
        raise OSError(30, "Read-only file system")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path, {V4: "0", V6: "0", RA: "1", "net/ipv6/conf/eth1/accept_ra": "0"})


def test_a_setting_is_written_where_it_differs_and_its_former_value_recorded(proc: Proc) -> None:
    ledger = Remembered()
    settings = Sysctls(ledger, root=proc.root)

    assert settings.ensure(V4, "1") is True
    assert settings.ensure(V4, "1") is False
    assert proc[V4] == "1"
    assert ledger == {V4: "0"}


def test_what_goes_with_its_interface_is_not_recorded(tmp_path: Path) -> None:
    names = [f"net/ipv4/conf/{name}/route_localnet" for name in ("veth1", "br0")]
    proc, ledger = Proc(tmp_path, dict.fromkeys(names, "0")), Remembered()
    settings = Sysctls(ledger, root=tmp_path)
    settings.allow_localhost_ports("veth1", lasting=False)
    settings.allow_localhost_ports("br0")

    assert [proc[name] for name in names] == ["1", "1"]
    assert ledger == {names[1]: "0"}


def test_a_right_value_needs_no_writing_to_a_read_only_tree(proc: Proc) -> None:
    ledger = Remembered()

    assert ReadOnly(ledger, root=proc.root).ensure(V4, "0") is False
    assert ledger == {}


def test_a_wrong_value_in_a_read_only_tree_says_what_to_do(proc: Proc) -> None:
    with pytest.raises(SysctlRefused) as refused:
        ReadOnly(root=proc.root).ensure(RA, "2")

    assert str(refused.value) == (
        f"cannot set {RA} to 2 (it is 1): Read-only file system;"
        f" set it on the host: sysctl -w {RA}=2"
    )


def test_a_setting_that_is_not_there_is_named(proc: Proc) -> None:
    settings = Sysctls(root=proc.root)

    assert settings.get("net/ipv4/nothing") is None
    with pytest.raises(SysctlRefused, match="no such setting"):
        settings.ensure("net/ipv4/nothing", "1")


def test_uplinks_keep_listening_to_advertisements_before_forwarding_begins(proc: Proc) -> None:
    ledger = Remembered()
    Sysctls(ledger, root=proc.root).enable_forwarding(
        ipv4=True, ipv6=True, uplinks=["eth0.5", "eth1"]
    )

    assert (proc[V4], proc[V6], proc[RA]) == ("1", "1", "2")
    assert proc["net/ipv6/conf/eth1/accept_ra"] == "0"
    assert list(ledger) == [V4, RA, V6]


def test_only_the_families_asked_for_are_forwarded(proc: Proc) -> None:
    Sysctls(root=proc.root).enable_forwarding(ipv4=False, ipv6=True)

    assert (proc[V4], proc[V6]) == ("0", "1")


def test_a_host_that_forwards_already_is_left_as_it_is(proc: Proc) -> None:
    forwarding = Proc(proc.root, {V4: "1", V6: "1"})
    ReadOnly(root=proc.root).enable_forwarding(ipv4=True, ipv6=True, uplinks=["eth0.5"])

    assert forwarding[RA] == "1"


def test_a_host_without_ipv6_has_nothing_to_forward(tmp_path: Path) -> None:
    Proc(tmp_path, {V4: "1"})

    Sysctls(root=tmp_path).enable_forwarding(ipv4=True, ipv6=True)


def test_settings_are_put_back_and_gone_interfaces_passed_over(proc: Proc) -> None:
    settings = Sysctls(root=proc.root)
    settings.ensure(V4, "1")

    assert settings.restore({V4: "0", "net/ipv4/conf/gone/route_localnet": "0"}) == []
    assert proc[V4] == "0"


def test_what_cannot_be_put_back_is_told(proc: Proc) -> None:
    (complaint,) = ReadOnly(root=proc.root).restore({V4: "1", V6: "0"})

    assert complaint.startswith(f"cannot set {V4} to 1")


def test_a_ledger_keeps_the_first_value_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "sysctl.json"
    FileLedger(path).record(V4, "0")
    FileLedger(path).record(V4, "1")
    FileLedger(path).record(V6, "0")

    assert FileLedger(path).recorded() == {V4: "0", V6: "0"}
    assert json.loads(path.read_text()) == {V4: "0", V6: "0"}
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_ledger_can_be_forgotten(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path / "sysctl.json")
    ledger.record(V4, "0")
    ledger.forget()
    ledger.forget()

    assert ledger.recorded() == {}


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_ledger_counts_as_empty(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sysctl.json"
    path.write_text(content)

    assert FileLedger(path).recorded() == {}


def test_a_setting_is_not_touched_when_its_former_value_cannot_be_kept(
    proc: Proc, tmp_path: Path
) -> None:
    ledger = FileLedger(tmp_path / "no" / "such" / "folder" / "sysctl.json")

    with pytest.raises(SysctlRefused, match="cannot record"):
        Sysctls(ledger, root=proc.root).ensure(V4, "1")
    assert proc[V4] == "0"
