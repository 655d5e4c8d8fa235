"""What tells this boot and this machine from others."""

import re

from agent.boot import boot_id, machine_id, now_ns, own_addresses


def test_a_boot_has_one_id() -> None:
    assert boot_id() == boot_id()
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", boot_id())


def test_time_only_goes_on() -> None:
    first, second = now_ns(), now_ns()

    assert 0 < first <= second


def test_a_machine_has_one_id_or_none() -> None:
    assert machine_id() == machine_id()
    assert not machine_id().endswith("\n")


def test_own_addresses_are_one_of_each_family_that_others_can_reach() -> None:
    found = own_addresses(["127.0.0.1:1", "[::1]:1", "no-such-host.invalid:1"])

    assert len({one.version for one in found}) == len(found)
    assert not any(one.is_loopback or one.is_link_local for one in found)
