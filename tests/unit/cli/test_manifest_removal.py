"""What takes isthmus off the nodes again."""

from ipaddress import ip_network

from cli.manifest_removal import removal
from cli.manifest_site import PoolChoice, Site

SITE = Site(image="isthmus:1", pools=(PoolChoice(ip_network("10.244.0.0/16"), 24),))


def test_every_node_is_cleaned_and_says_when_it_is() -> None:
    _, daemon_set = removal(SITE, force=False)
    spec = daemon_set["spec"]["template"]["spec"]
    [container] = spec["containers"]

    assert daemon_set["kind"] == "DaemonSet"
    assert container["args"][:3] == ["uninstall-node", "--root", "/host"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert spec["automountServiceAccountToken"] is False


def test_what_the_host_unmounts_is_not_kept() -> None:
    _, daemon_set = removal(SITE, force=False)
    [container] = daemon_set["spec"]["template"]["spec"]["containers"]
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}

    assert mounts["/host/run"]["mountPropagation"] == "HostToContainer"


def test_by_force_pods_are_not_waited_for() -> None:
    _, daemon_set = removal(SITE, force=True)

    [container] = daemon_set["spec"]["template"]["spec"]["containers"]
    assert container["args"][-1] == "--force"
