"""A node over a state directory: its lock, its store, and what makes it not ready."""

import os
import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from agent.config import AgentConfig, IpamdConfig, KubernetesConfig
from agent.wiring import (
    StateLocked,
    Wired,
    enroll,
    introduce,
    join,
    lock_state,
    translate_services,
    unable,
    wire,
)
from ipam.errors import NotServed, StoreUnavailable
from ipam.holdings import OwnBlock
from ipam.leases import Attachment, Record, Wanted
from ipam.ranges import Range, RangeSet
from proxy.settings import Settings as ServicesConfig

WHO = Attachment("shop", "c1", "eth0")
TWO = Wanted(range_sets=(RangeSet((Range.of("10.9.0.0/30"),)),))


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    return AgentConfig(state_dir=tmp_path / "state", socket=tmp_path / "agent.sock")


def hold(wired: Wired, boot_id: str = "") -> Record:
    (lease,) = wired.leases.reserve(WHO, TWO)
    record = Record(
        who=WHO,
        boot_id=boot_id or wired.node.boot_id,
        started_ns=7,
        sandbox="/n",
        netns_cookie=1,
        addresses=(lease.address,),
    )
    wired.leases.hold(record).result()
    return record


def test_a_new_node_has_a_private_directory_a_store_and_is_ready(config: AgentConfig) -> None:
    wired = wire(config)
    try:
        assert config.state_dir.stat().st_mode & 0o777 == 0o700
        assert config.database.exists()
        assert wired.node.ready() == ""
        assert wired.node.namespace.inode == os.stat("/proc/self/ns/net").st_ino
    finally:
        wired.close()


def test_what_was_held_is_held_again(config: AgentConfig) -> None:
    first = wire(config)
    record = hold(first)
    first.close()

    second = wire(config)
    found = second.leases.find(WHO)
    second.close()

    assert found == record
    assert record.addresses == (ip_interface("10.9.0.2/30"),)


def test_only_a_store_that_was_there_can_be_lost(config: AgentConfig) -> None:
    owed = []
    for is_lost in (False, False, True):
        if is_lost:
            config.database.unlink()
        wired = wire(config)
        owed.append(wired.reconciler.search.owed)
        wired.close()
    config.lost.unlink()
    config.database.write_bytes(b"")
    wired = wire(config)
    owed.append(wired.reconciler.search.owed)
    wired.close()

    assert owed == [False, False, True, True]


def test_two_cannot_work_on_one_directory(config: AgentConfig) -> None:
    first = wire(config)
    try:
        with pytest.raises(StateLocked) as caught:
            wire(config)
    finally:
        first.close()
    wire(config).close()

    assert str(caught.value) == (
        f"{config.lock} is locked: another isthmus agent or standalone program is at work"
    )


def test_a_store_that_cannot_be_opened_is_left_alone_and_nothing_promised(
    config: AgentConfig,
) -> None:
    config.state_dir.mkdir()
    config.database.mkdir()
    before = len(os.listdir("/proc/self/fd"))

    wired = wire(config)
    wired.mend_store()
    reason = wired.node.ready()
    with pytest.raises(StoreUnavailable):
        wired.leases.reserve(WHO, TWO)
    wired.close()

    assert reason.startswith("addresses cannot be made durable: ")
    assert str(config.database) in reason
    assert config.database.is_dir()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_store_that_was_left_alone_is_begun_with_once_it_opens(config: AgentConfig) -> None:
    first = wire(config)
    record = hold(first)
    first.close()
    away = config.database.with_name("away")
    config.database.rename(away)
    config.database.mkdir()

    wired = wire(config)
    at_first = wired.can_begin_anew()
    config.database.rmdir()
    away.rename(config.database)
    afterwards = wired.can_begin_anew()
    wired.mend_store()
    wired.close()
    again = wire(config)
    found = again.leases.find(WHO)
    again.close()

    assert (at_first, afterwards) == (False, True)
    assert found == record


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(OSError, match="Not a directory"):
        wire(AgentConfig(state_dir=tmp_path / "file" / "state"))


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 999])
def test_a_damaged_store_is_kept_aside_and_a_new_one_serves(
    config: AgentConfig, content: bytes
) -> None:
    config.state_dir.mkdir()
    config.database.write_bytes(content)

    wired = wire(config)
    ready = wired.node.ready()
    hold(wired)
    wired.close()

    aside = [path for path in config.state_dir.iterdir() if path.read_bytes() == content]
    assert ready == ""
    assert len(aside) == 1
    assert aside[0] != config.database


def test_a_store_that_went_is_written_anew_with_all_that_is_held(config: AgentConfig) -> None:
    wired = wire(config)
    record = hold(wired)
    for path in config.state_dir.glob("isthmus.db*"):
        path.unlink()
    wired.leases.expire()
    spoil(wired)

    wired.mend_store()
    degraded = wired.leases.degraded
    owed = wired.reconciler.search.owed
    wired.close()

    again = wire(config)
    found = again.leases.find(WHO)
    again.close()
    assert degraded == ""
    assert not owed  # nothing was forgotten
    assert found == record


def spoil(wired: Wired) -> None:
    """Let the store notice that its file has gone: by a write that it has to refuse."""
    try:
        wired.leases.hold(replace(hold_of(wired), started_ns=8)).result()
    except StoreUnavailable:
        wired.leases.hold(hold_of(wired))


def hold_of(wired: Wired) -> Record:
    found = wired.leases.find(WHO)
    assert found is not None

    return found


def test_a_store_that_works_is_left_alone(config: AgentConfig) -> None:
    wired = wire(config)
    before = config.database.stat().st_ino

    wired.mend_store()
    after = config.database.stat().st_ino
    wired.close()

    assert before == after


def test_a_node_whose_unusable_store_goes_gets_a_new_one(config: AgentConfig) -> None:
    config.state_dir.mkdir()
    config.database.mkdir()
    wired = wire(config)
    config.database.rmdir()

    wired.mend_store()
    ready = wired.node.ready()
    wired.close()

    # What the file told of is in no memory: only a search can tell what is free.
    assert "yet to be searched" in ready
    assert config.lost.exists()
    assert config.database.is_file()


def full(wired: Wired) -> str:
    hold(wired)
    return wired.node.ready()


@pytest.mark.parametrize(
    ("counts", "reason"), [(False, ""), (True, "no free address in 10.9.0.0/30")]
)
def test_a_full_range_counts_only_where_it_was_asked_for(
    config: AgentConfig, counts: bool, reason: str
) -> None:
    wired = wire(replace(config, status_counts_addresses=counts))
    found = full(wired)
    wired.close()

    assert found == reason


def test_a_lock_is_held_as_long_as_its_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = lock_state(path)
    with pytest.raises(StateLocked):
        lock_state(path)
    os.close(first)

    os.close(lock_state(path))
    assert path.stat().st_mode & 0o777 == 0o600


IPAMD = IpamdConfig(
    endpoints=("127.0.0.1:1",),
    ca=Path("/no/ca.pem"),
    certificate=Path("/no/node.pem"),
    key=Path("/no/node.key"),
    node="n1",
)


def test_without_ipamd_there_are_no_blocks_and_nothing_to_talk_to(config: AgentConfig) -> None:
    wired = wire(config)
    try:
        assert (wired.blocks, wired.node.blocks, join(wired)) == (None, None, None)
    finally:
        wired.close()


def test_with_ipamd_a_node_is_not_ready_before_it_has_registered_once_in_a_boot(
    config: AgentConfig,
) -> None:
    config = replace(config, ipamd=IPAMD)
    first = wire(config, boot="boot-1")
    assert first.blocks is not None
    early = first.node.ready()
    own = replace(first.blocks.holdings, epoch=1, confirmed_boot="boot-1")
    first.blocks.adopt(own).result()
    confirmed = first.node.ready()
    talk = join(first)
    first.close()
    second = wire(config, boot="boot-2")
    assert second.blocks is not None
    again, kept = second.node.ready(), second.blocks.holdings
    second.close()

    assert early == "this node has not registered with ipamd"
    assert confirmed == ""
    assert again == "this node was started anew, and waits for ipamd"
    assert kept == own
    assert talk is not None
    assert talk.describe()["node"] == "n1"


def test_an_agent_without_ipamd_does_not_load_grpc() -> None:
    script = "import sys, agent.daemon; sys.exit(any(m.startswith('grpc') for m in sys.modules))"

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_in_kubernetes_verbs_ask_it_and_ipamd_is_where_it_says(config: AgentConfig) -> None:
    ipamd = replace(IPAMD, endpoints=(), certificate=None, key=None, token=Path("/t"), node="a")
    config = replace(
        config, ipamd=ipamd, kubernetes=KubernetesConfig(node="a", service="isthmus/ipamd")
    )
    wired = wire(config)
    try:
        before = wired.node.kubernetes
        kubernetes = introduce(wired, lambda: None)

        assert before is None
        assert kubernetes is not None
        assert wired.node.kubernetes is kubernetes.pods
        assert enroll(wired, kubernetes, lambda: None) is not None
        assert kubernetes.endpoints() == ()
        with pytest.raises(NotServed, match="Node a is not known yet"):
            kubernetes.labels()
    finally:
        wired.close()


def test_services_are_translated_where_configured_and_go_by_what_is_said_of_the_node(
    config: AgentConfig,
) -> None:
    served = ServicesConfig(
        pod_cidrs=(ip_network("10.244.0.0/16"),),
        service_cidrs=(ip_network("10.96.0.0/16"),),
        set_conntrack=False,
    )
    kubernetes = KubernetesConfig(node="node-1")
    wired = wire(replace(config, kubernetes=kubernetes, services=served), boot="b")
    try:
        services = translate_services(wired, introduce(wired, lambda: None))

        assert services is not None
        assert services.view().name == "node-1"
        assert services.view().service_cidrs == served.service_cidrs
        assert services.unhealthy() == "Services are not programmed yet"
    finally:
        wired.close()


def test_without_kubernetes_nobody_is_asked(config: AgentConfig) -> None:
    wired = wire(replace(config, ipamd=IPAMD))
    try:
        assert introduce(wired, lambda: None) is None
        assert translate_services(wired, None) is None
        assert enroll(wired, None, lambda: None) is None
        assert wired.node.kubernetes is None
    finally:
        wired.close()


def test_a_node_without_addresses_to_give_is_not_able(config: AgentConfig) -> None:
    wired = wire(replace(config, ipamd=IPAMD), boot="boot-1")
    try:
        assert wired.blocks is not None
        unregistered = unable(wired)
        own = replace(wired.blocks.holdings, epoch=1, confirmed_boot="boot-1")
        wired.blocks.adopt(own).result()
        without = unable(wired)
        block = OwnBlock(cidr=ip_network("10.9.0.0/24"), pool="p", epoch=1, revision=1)
        wired.blocks.adopt(replace(own, blocks=(block,))).result()

        assert unregistered == "this node has not registered with ipamd"
        assert without == "this node has no block of addresses"
        assert unable(wired) == ""
    finally:
        wired.close()
