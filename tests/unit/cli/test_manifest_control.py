"""The control plane's part of the manifest."""

import tomllib
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from cli.manifest_control import control
from cli.manifest_site import Member, PoolChoice, Site
from ipam.daemon_config import parse

SITE = Site(image="isthmus:1", pools=(PoolChoice(ip_network("10.244.0.0/16"), 24),))
THREE = tuple(Member(f"cp-{n}", ip_address(f"10.0.0.{n}")) for n in (1, 2, 3))


def found(site: Site, kind: str) -> list[dict[str, Any]]:
    return [one for one in control(site) if one["kind"] == kind]


def deployments(site: Site) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"] for one in found(site, "Deployment")}


def configured(site: Site) -> Any:
    [config] = found(site, "ConfigMap")
    return parse(tomllib.loads(config["data"]["ipamd.toml"]))


def test_one_member_is_reached_by_a_socket_on_its_node_and_by_nothing_else() -> None:
    pods = deployments(SITE)
    [etcd] = pods["isthmus-etcd"]["template"]["spec"]["containers"]
    listening = [word for word in etcd["command"] if word.startswith("--listen-")]
    affinity = pods["isthmus-ipamd"]["template"]["spec"]["affinity"]["podAffinity"]

    assert configured(SITE).etcd_endpoints == ("unix:///run/isthmus-etcd/localhost:2479",)
    assert listening == [
        "--listen-client-urls=unix://localhost:2479",
        "--listen-peer-urls=unix://localhost:2480",
        "--listen-metrics-urls=http://127.0.0.1:2481",
    ]
    assert etcd["workingDir"] == "/run/isthmus-etcd"
    [term] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"] == {"app.kubernetes.io/name": "isthmus-etcd"}


def test_three_members_know_each_other_and_speak_tls() -> None:
    site = replace(SITE, members=THREE)
    pods = deployments(site)
    words = [
        pods[f"isthmus-etcd-{member.node}"]["template"]["spec"]["containers"][0]["command"]
        for member in THREE
    ]
    clusters = {word for command in words for word in command if "initial-cluster=" in word}
    config = configured(site)

    assert clusters == {
        "--initial-cluster=cp-1=https://10.0.0.1:2480,cp-2=https://10.0.0.2:2480,"
        "cp-3=https://10.0.0.3:2480"
    }
    assert all("--peer-client-cert-auth=true" in command for command in words)
    assert config.etcd_endpoints == tuple(f"https://10.0.0.{n}:2479" for n in (1, 2, 3))
    assert str(config.etcd_certificate) == "/etc/isthmus-etcd/client.pem"
    assert pods["isthmus-ipamd"]["replicas"] == 3
    assert "podAntiAffinity" in pods["isthmus-ipamd"]["template"]["spec"]["affinity"]


def test_each_member_stays_on_the_node_that_has_its_data() -> None:
    pods = deployments(replace(SITE, members=THREE))

    for member in THREE:
        spec = pods[f"isthmus-etcd-{member.node}"]
        assert spec["template"]["spec"]["nodeSelector"] == {"kubernetes.io/hostname": member.node}
        assert spec["strategy"] == {"type": "Recreate"}
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


def test_another_etcd_brings_none_of_ours() -> None:
    site = replace(SITE, etcd=("https://etcd.example:2379",), etcd_secret="there")
    pods = deployments(site)
    volumes = pods["isthmus-ipamd"]["template"]["spec"]["volumes"]

    assert set(pods) == {"isthmus-ipamd"}
    assert found(site, "CronJob") == []
    assert {"name": "etcd", "secret": {"secretName": "there"}} in volumes
    assert configured(site).etcd_endpoints == ("https://etcd.example:2379",)


def test_ipamd_rolls_without_a_second_one_beside_it() -> None:
    strategy = deployments(SITE)["isthmus-ipamd"]["strategy"]["rollingUpdate"]

    assert strategy == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_job_of_other_choices_is_another_job() -> None:
    [one] = found(SITE, "Job")
    [same] = found(replace(SITE, mtu=1400), "Job")
    [other] = found(replace(SITE, image="isthmus:2"), "Job")

    assert one == same
    assert one["metadata"]["name"] != other["metadata"]["name"]


def test_the_service_is_of_no_address() -> None:
    [service] = found(SITE, "Service")

    assert service["spec"]["clusterIP"] == "None"
    assert [port["name"] for port in service["spec"]["ports"]] == ["ipamd", "enroll"]
