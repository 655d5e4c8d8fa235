"""`isthmus ipam check` over a real etcd, two replicas of ipamd, and agents with their stores."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.agents import Machine, made_machine, until
from tests.kernel.conftest import Namespace
from tests.kernel.etcd import Etcd, running
from tests.kernel.ipamds import Site, site
from tests.kernel.switch import switched

pytestmark = pytest.mark.kernel

NETWORK = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "isthmus",
    "mode": "routed",
    "ipam": {"type": "isthmus"},
}
PREFIX = "/isthmus/v1/default/"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Two nodes, each at another replica."""

    etcd: Etcd
    place: Site
    nodes: tuple[Machine, Machine]

    def check(self, *words: str) -> tuple[int, list[dict[str, Any]], str]:
        elsewhere = ("--socket", "/nonexistent", "--store", "/nonexistent")
        done = self.place.isthmus("ipam", "check", "--json", *elsewhere, *words)
        return done.returncode, json.loads(done.stdout)["findings"], done.stderr

    def settle(self) -> None:
        for node in self.nodes:
            until(lambda node=node: is_settled(node), "it has blocks, and has told its leases")  # type: ignore[misc]


def is_settled(node: Machine) -> bool:
    status = node.ask("status")["status"]["cluster"]
    return len(status["blocks"]) == 2 and not status["mirror_waiting"]


@pytest.fixture
def cluster(
    binary: str, tmp_path: Path, namespaces: Callable[[str], Namespace]
) -> Iterator[Cluster]:
    with ExitStack() as undo:
        switch = switched(namespaces("switch"))
        etcd = undo.enter_context(
            running(tmp_path / "etcd", hosts=[switch.host], observer=switch.host)
        )
        place = undo.enter_context(site(tmp_path, etcd, 0))
        place.observer = switch.host
        for number in range(2):
            place.add(host=switch.plug(namespaces(f"ipamd{number}"))).start()
        place.begin(("four", "10.30.0.0/16"), ("six", "fd30::/112"))
        nodes = []
        for name, endpoint in zip(("n1", "n2"), place.endpoints, strict=True):
            node = undo.enter_context(made_machine(tmp_path / name, binary))
            files = place.signer.node(name)
            node.settings = {
                "ipamd": {
                    "endpoints": [endpoint],
                    "ca": str(files.ca),
                    "certificate": str(files.certificate),
                    "key": str(files.key),
                    "node": name,
                    "addresses": [switch.plug(node.host).address],
                }
            }
            node.start()
            nodes.append(node)
        made = Cluster(etcd, place, (nodes[0], nodes[1]))
        made.settle()
        for node in nodes:
            assert node.add(node.pod(), network=NETWORK).status == 0
        made.settle()
        yield made


def test_the_agents_own_stores_are_compared_whichever_replica_they_are_at(
    cluster: Cluster,
) -> None:
    well = cluster.check()
    lease = cluster.etcd.ctl("get", "--prefix", f"{PREFIX}lease/n2/").stdout.splitlines()
    cluster.etcd.ctl("del", lease[0])
    cluster.etcd.ctl("put", lease[0].replace("/n2/", "/n1/"), "--", lease[1])
    status, found, _ = cluster.check()
    cluster.nodes[0].pause()
    silent = cluster.check()[1]
    cluster.nodes[0].resume()
    left = cluster.etcd.ctl("get", "--prefix", PREFIX, "--keys-only").stdout

    assert well == (0, [], "")
    assert status == 1
    assert {(one["kind"], one["subject"]) for one in found} >= {("lag", "n1"), ("lag", "n2")}
    assert ("duplicate", "n2") not in {(one["kind"], one["subject"]) for one in found}
    assert [one["subject"] for one in silent if one["kind"] == "silent"] == ["n1"]
    assert "/answer/" not in left
    assert "/audit" not in left


def test_fix_says_what_it_will_do_and_forgets_what_a_fenced_node_had(cluster: Cluster) -> None:
    gone = cluster.nodes[1]
    gone.kill()
    cluster.place.must("ipam", "drain", "n2", "--fenced", "--force")
    until(
        lambda: not json.loads(cluster.place.must("ipam", "nodes", "--json"))[1]["alive"],
        "n2 is not seen alive",
        timeout=40,
    )
    before = cluster.check()[1]
    status, after, said = cluster.check("--fix")
    leases = cluster.etcd.ctl("get", "--prefix", f"{PREFIX}lease/n2/", "--keys-only").stdout

    blocks = {one["subject"] for one in before if one["mend"].startswith("release ")}
    assert len(blocks) == 2
    assert [one["mend"] for one in before if one["subject"] == "n2" and one["mend"]] == [
        "forget n2"
    ]
    assert said.index("will forget n2") < said.index("done: ")
    assert (status, leases) == (1, "")
    assert {(one["kind"], one["subject"]) for one in after} == {("forgotten", "n2")}
