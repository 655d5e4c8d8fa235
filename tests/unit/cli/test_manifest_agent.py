"""The agent's part of the manifest, as its own readers take it."""

import json
import tomllib
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from agent.config import parse
from cli.manifest_agent import LIST, config_map, daemon_set, network_list
from cli.manifest_site import Mode, PoolChoice, Site

V4, V6 = (
    PoolChoice(ip_network(text), length)
    for text, length in (("10.244.0.0/16", 24), ("fd00::/56", 112))
)
SITE = Site(image="isthmus:1", pools=(V4,))


def configured(site: Site) -> Any:
    return parse(tomllib.loads(config_map(site)["data"]["agent.toml"]))


@pytest.mark.parametrize("mode", list(Mode))
def test_the_configuration_is_one_that_the_agent_takes(mode: Mode) -> None:
    found = configured(replace(SITE, mode=mode, mtu=1400, masquerade=False))

    assert found.routing.mode == mode.value
    assert found.routing.mtu == 1400
    assert found.masquerade is None
    assert found.install.network_list.name == LIST


def test_services_are_translated_where_that_is_asked_for() -> None:
    assert configured(SITE).services is None
    assert configured(replace(SITE, services=True)).services is not None
    assert configured(replace(SITE, services=True)).announce is None
    assert configured(replace(SITE, services=True, announce=True)).announce is not None
    for is_opened in (False, True):
        found = configured(replace(SITE, services=True, open_firewall=is_opened)).services
        assert found is not None
        assert found.open_firewall is is_opened


def test_the_api_server_is_found_by_option_or_in_the_kubelets_file() -> None:
    by_file = configured(SITE).kubernetes
    by_option = configured(replace(SITE, api_server="https://10.0.0.1:6443")).kubernetes

    assert str(by_file.address_from) == "/etc/isthmus-kubelet/kubelet.conf"
    assert by_option.address == "https://10.0.0.1:6443"


@pytest.mark.parametrize(
    ("pools", "routes"),
    [((V4,), ["0.0.0.0/0"]), ((V6,), ["::/0"]), ((V4, V6), ["0.0.0.0/0", "::/0"])],
)
def test_pods_have_a_default_route_of_each_family(
    pools: tuple[PoolChoice, ...], routes: list[str]
) -> None:
    plugin = json.loads(network_list(replace(SITE, pools=pools)))["plugins"][0]

    assert [route["dst"] for route in plugin["ipam"]["routes"]] == routes
    assert "ranges" not in plugin["ipam"]


def test_another_configuration_rolls_the_pods_and_the_same_one_does_not() -> None:
    def mark(site: Site) -> Any:
        return daemon_set(site)["spec"]["template"]["metadata"]["annotations"]

    assert mark(SITE) == mark(replace(SITE, image="isthmus:2"))
    assert mark(SITE) != mark(replace(SITE, mode=Mode.VXLAN))


def test_the_agent_is_not_privileged() -> None:
    [container] = daemon_set(SITE)["spec"]["template"]["spec"]["containers"]

    assert "privileged" not in container["securityContext"]
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_a_former_networks_addresses_are_looked_for_where_that_kept_them() -> None:
    site = replace(SITE, host_local="/run/leases")

    template = daemon_set(site)["spec"]["template"]["spec"]
    mounts = {one["name"]: one["mountPath"] for one in template["containers"][0]["volumeMounts"]}
    volumes = {one["name"]: one.get("hostPath", {}).get("path") for one in template["volumes"]}

    assert str(configured(site).host_local) == mounts["former"]
    assert volumes["former"] == "/run/leases"
