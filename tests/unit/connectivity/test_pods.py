"""What a self-test asks the API server for."""

import json

from connectivity.model import Path, Target, Trial
from connectivity.pods import Program, client, name_of, namespace, server

PROGRAM = Program("isthmus:1", ("/opt/isthmus/isthmus",))
TARGET = Target(path=Path.OUTSIDE, address="192.0.2.1", port=443, node="", trials=(Trial.TCP,))


def test_a_server_is_put_on_its_node_whatever_its_taints() -> None:
    spec = server("n1", PROGRAM, host_network=False)["spec"]

    assert spec["nodeName"] == "n1"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["containers"][0]["ports"][0]["hostPort"]
    assert spec["containers"][0]["command"] == ["/opt/isthmus/isthmus"]


def test_a_client_takes_its_targets_along() -> None:
    args = client("n1", PROGRAM, [TARGET], host_network=True)["spec"]["containers"][0]["args"]

    (targets,) = [arg.removeprefix("--targets=") for arg in args if arg.startswith("--targets=")]
    assert [Target.from_json(each) for each in json.loads(targets)] == [TARGET]


def test_nothing_in_a_pod_has_a_right_beyond_an_ordinary_program() -> None:
    context = server("n1", PROGRAM, host_network=True)["spec"]["containers"][0]["securityContext"]

    assert context["runAsNonRoot"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_names_are_distinct_and_fit_a_label_whatever_the_node_is_called() -> None:
    nodes = ["n" * 250, "n" * 251, "n1"]

    names = {name_of(role, node, host) for role in ("server", "client")
             for node in nodes for host in (True, False)}  # fmt: skip

    assert len(names) == 12
    assert all(len(name) <= 63 for name in names)


def test_the_namespace_lets_pods_into_the_hosts_network() -> None:
    labels = namespace("x")["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
