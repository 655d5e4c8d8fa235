"""What all pods of isthmus have in common."""

from ipaddress import ip_network

from cli.manifest_pods import confined, kubelet_file, pod
from cli.manifest_site import PoolChoice, Site

SITE = Site(image="isthmus", pools=(PoolChoice(ip_network("10.244.0.0/16"), 24),))


def test_a_pod_needs_neither_network_nor_dns_of_the_cluster_and_runs_on_any_node() -> None:
    spec = pod("isthmus-x", {"name": "x"})["spec"]

    assert spec["hostNetwork"] is True
    assert spec["dnsPolicy"] == "Default"
    assert spec["tolerations"] == [{"operator": "Exists"}]


def test_a_container_has_only_the_capabilities_that_are_named() -> None:
    assert confined()["capabilities"] == {"drop": ["ALL"]}
    assert confined("NET_ADMIN")["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}


def test_the_kubelets_file_is_mounted_only_where_no_address_is_given() -> None:
    given = Site(image="isthmus", pools=SITE.pools, api_server="https://10.0.0.1:6443")

    assert kubelet_file(given) == ([], [])
    [volume], [mounted] = kubelet_file(SITE)
    assert volume["hostPath"] == {"path": "/etc/kubernetes/kubelet.conf", "type": "File"}
    assert mounted["readOnly"] is True
