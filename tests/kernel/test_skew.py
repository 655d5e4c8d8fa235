"""Agent and ipamd one minor version apart, there and back, each with what the other one stored.

The later version is made of this one: everything it says or stores has something more in it, as
docs/kubernetes.md allows a minor version.
"""

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.kernel import ipamds
from tests.kernel.agents import ROOT, Machine, Pod, until
from tests.kernel.etcd import Etcd, running
from tests.kernel.sockets import inside

pytestmark = pytest.mark.kernel

LATER = "9.9.0"
PACKAGES = (
    *("agent", "cli", "cni", "connectivity", "dataplane", "ipam", "kube", "masquerade"),
    *("announcement", "net", "proxy", "routing"),
)
NETWORK = {
    "cniVersion": "1.1.0",
    "name": "pods",
    "type": "isthmus",
    "mode": "routed",
    "ipam": {"type": "isthmus", "routes": [{"dst": "0.0.0.0/0"}]},
}
# Of each file what is sought, and what comes in its place or after it.
CHANGES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "agent/version.py": ((r'"[0-9.]+"', f'"{LATER}"'),),
    "ipam/ipamd.proto": (
        (
            r"(message (?:\w+Request|\w+Reply|HeldBlock|\w+Row|\w+Spec|MirroredLease) \{\n)",
            r"\1  string later = 1000;\n",
        ),
        (r"(message \w+ \{)\}", r"\1\n  string later = 1000;\n}"),
        (r"(  rpc Leave\(.*)", r"\1\n  rpc Later(LeaveRequest) returns (LeaveReply);"),
    ),
    "ipam/calls.py": (
        (
            r"(class (?:Register|Registered|Claim|Claimed|Mirror|Audit|Update|Held|TableRow|"
            r'PoolRow|MirroredLease):\n(?:    """(?s:.*?)"""\n\n)?)((?:    \w+: .*\n)+)',
            r'\1\2    later: str = "said"\n',
        ),
    ),
    "ipam/server.py": (
        (
            r"(    @_answered\(_node\)\n    async def Leave)",
            "    async def Later(self, request: object, context: object) -> None:\n"
            "        return\n\n" + r"\1",
        ),
    ),
    "ipam/cluster.py": (
        (
            r'(class (?:Node|Block|Pool|Settings|Meta):\n    """(?s:.*?)"""\n\n|class Meta:\n)'
            r"((?:    \w+: .*\n)+)",
            r'\1\2    later: str = "stored"\n',
        ),
    ),
    "ipam/sqlite.py": (
        (
            r'(        "INSERT INTO readable VALUES \(4\)",\n    \),\n)',
            r'\1    ("CREATE TABLE later (x)",),\n',
        ),
    ),
    "cni/spec.py": (
        (r'(        "enabled": spec.enabled,\n)', r'\1        "later": ["stored"],\n'),
    ),
}


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of a later version."""
    tree = tmp_path_factory.mktemp("later")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file, changes in CHANGES.items():
        text = (tree / file).read_text()
        for sought, instead in changes:
            text, number = re.subn(sought, instead, text)
            assert number, f"{file} has no {sought}"
        (tree / file).write_text(text)
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-Iipam/rpc=ipam", "--python_out=."),
            *("--pyi_out=.", "--grpc_python_out=.", "ipam/rpc/ipamd.proto"),
        ],
        cwd=tree,
        check=True,
        timeout=60,
    )
    return tree


@pytest.fixture
def etcd(machine: Machine, tmp_path: Path) -> Iterator[Etcd]:
    with inside(machine.host), running(tmp_path / "etcd") as cluster:
        yield cluster


class Site:
    """A node and its ipamd, of whichever versions, and pods that run all the while."""

    def __init__(self, machine: Machine, place: ipamds.Site) -> None:
        self.machine, self.place = machine, place
        self.pods: list[tuple[Pod, tuple[str, ...]]] = []

    def begin(self) -> None:
        files = self.place.signer.node("n1")
        self.machine.host.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
        self.machine.network = NETWORK
        self.machine.settings = {
            "ipamd": {
                "endpoints": list(self.place.endpoints),
                "ca": str(files.ca),
                "certificate": str(files.certificate),
                "key": str(files.key),
                "node": "n1",
                "addresses": ["192.0.2.1"],
            }
        }
        self.machine.start()
        until(lambda: len(self.blocks()) == 1, "it has a block", timeout=60)

    def blocks(self) -> list[str]:
        found = self.machine.ask("status")["status"]["cluster"]["blocks"]
        return [block["cidr"] for block in found if block["state"] == "active"]

    def exchange_ipamd(self, tree: Path) -> None:
        (replica,) = self.place.replicas
        replica.stop(15)
        replica.tree = tree
        replica.start()

    def exchange_agent(self, tree: Path) -> None:
        self.machine.stop()
        self.machine.tree = tree
        self.machine.start()

    def work(self) -> None:
        """More pods than the node has blocks for; one that ends; all compared."""
        blocks = len(self.blocks())
        while len(self.blocks()) == blocks:
            pod = self.machine.pod()
            until(lambda: self.machine.add(pod).status == 0, "a pod is attached", timeout=60)  # noqa: B023
            self.pods.append((pod, tuple(pod.addresses())))
            cluster = self.machine.ask("status")["status"]["cluster"]
            full = sum(b["used"] for b in cluster["blocks"]) >= 0.8 * 6 * blocks
            if full:
                until(lambda: len(self.blocks()) > blocks, "another block is there", timeout=60)
        ended, _ = self.pods.pop()
        assert self.machine.delete(ended).status == 0
        for pod, given in self.pods:
            assert set(pod.addresses()) == set(given)
        assert all(self.machine.host.pings(given[0]) for _, given in self.pods[:2])
        assert self.machine.problems() == []
        self.is_in_order()

    def is_in_order(self) -> None:
        """Pools, blocks, what the node told, and what it has."""

        def waits() -> bool:
            cluster = self.machine.ask("status")["status"]["cluster"]
            return bool(cluster["mirror_waiting"] or cluster["frozen"] or cluster["trouble"])

        until(lambda: not waits(), "ipamd was told", timeout=60)
        check = ("ipam", "check", "--socket", str(self.machine.launcher.socket))
        assert self.place.must(*check) == "No problem found.\n"


def test_each_of_agent_and_ipamd_goes_one_version_on_and_back_under_running_pods(
    machine: Machine, etcd: Etcd, later: Path, tmp_path: Path
) -> None:
    with ipamds.site(tmp_path / "site", etcd) as place:
        place.begin(("four", "10.33.0.0/24", "--block-length", "29"))
        site = Site(machine, place)
        site.begin()
        site.work()
        versions = []
        for exchange, tree in (
            (site.exchange_ipamd, later),  # as docs/kubernetes.md says: either may come first
            (site.exchange_agent, later),
            (site.exchange_ipamd, ROOT),
            (site.exchange_agent, ROOT),
            (site.exchange_agent, later),
            (site.exchange_agent, ROOT),
        ):
            exchange(tree)
            versions.append(machine.ask("status")["status"]["version"])
            site.work()
        with sqlite3.connect(machine.database) as store:
            tables = {name for (name,) in store.execute("SELECT name FROM sqlite_master")}
        store.close()
        stored = etcd.ctl("get", "--prefix", "/isthmus/v1/").stdout

        assert [version == LATER for version in versions] == [False, True, True, False, True, False]
        assert "later" in tables
        assert '"later":"stored"' in stored  # of the blocks that the later ipamd gave
        assert len({one for _, given in site.pods for one in given}) == len(site.pods)
