"""What a node has beside its own, where it is configured."""

import subprocess
import sys
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from agent.config import AgentConfig, IpamdConfig, KubernetesConfig
from agent.joining import announce, enroll, introduce, join, translate_services, unable
from agent.wiring import wire
from announcement.settings import Settings as AnnounceConfig
from ipam.errors import NotServed
from ipam.holdings import OwnBlock
from proxy.settings import Settings as ServicesConfig

IPAMD = IpamdConfig(
    endpoints=("127.0.0.1:1",),
    ca=Path("/no/ca.pem"),
    certificate=Path("/no/node.pem"),
    key=Path("/no/node.key"),
    node="n1",
)


@pytest.fixture
def config(tmp_path: Path) -> AgentConfig:
    return AgentConfig(state_dir=tmp_path / "state", socket=tmp_path / "agent.sock")


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


def test_addresses_are_announced_where_configured_alone(config: AgentConfig) -> None:
    served = ServicesConfig(service_cidrs=(ip_network("10.96.0.0/16"),), set_conntrack=False)
    both = replace(config, ipamd=IPAMD, kubernetes=KubernetesConfig(node="n1"), services=served)
    for settings in (None, AnnounceConfig()):
        wired = wire(replace(both, announce=settings), boot="b")
        try:
            kubernetes = introduce(wired, lambda: None)
            services = translate_services(wired, kubernetes)
            made = announce(wired, services, kubernetes)

            assert (made is None) == (settings is None)
            assert announce(wired, None, None) is None
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
