"""The names of the cluster's little world, and its network."""

from pathlib import Path

from cli.demo_cluster_site import HOSTS, ClusterSite, network


def test_every_host_has_its_own_of_everything() -> None:
    site = ClusterSite("ab12", Path("/run/isthmus-demo-ab12"), Path("/launcher"))

    assert site.endpoints == ("192.0.2.254:9476", "192.0.2.254:9477")
    assert [site.addresses(host)[0] for host in HOSTS] == [
        "192.0.2.1/24",
        "192.0.2.2/24",
        "198.51.100.3/24",
    ]
    assert len({site.socket(host) for host in HOSTS} | {site.state(host) for host in HOSTS}) == 6


def test_the_network_takes_its_addresses_from_blocks() -> None:
    plugin = network()

    assert "ranges" not in plugin["ipam"]
    assert plugin["mode"] == "routed"
