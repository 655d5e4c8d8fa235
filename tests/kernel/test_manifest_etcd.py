"""Our own etcd of three members, as the manifest starts it and docs/kubernetes.md restores it."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from cli.manifest_control import ETCD, UPKEEP, control
from cli.manifest_site import Member, PoolChoice, Site
from tests.certificates import Authority
from tests.kernel import ipamds
from tests.kernel.agents import ROOT, until
from tests.kernel.conftest import Namespace
from tests.kernel.etcd import Host
from tests.kernel.switch import switched

pytestmark = pytest.mark.kernel

PEERS = ROOT / "build" / "peers" / "bin"
DATA, CERTIFICATES = "/var/lib/isthmus-etcd", "/etc/isthmus-etcd"
POOL = PoolChoice(ip_network("10.244.0.0/16"), 24)


@dataclass(slots=True)
class Plane:
    """Three nodes of a control plane; each has what the manifest mounts, below *directory*."""

    directory: Path
    hosts: Sequence[Host]
    observer: Host
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def site(self) -> Site:
        members = tuple(
            Member(f"cp-{n}", ip_address(host.address)) for n, host in enumerate(self.hosts, 1)
        )
        return Site(image="isthmus:1", pools=(POOL,), members=members)

    @property
    def objects(self) -> dict[str, Any]:
        return {f"{o['kind']} {o['metadata']['name']}": o for o in control(self.site)}

    @property
    def config(self) -> dict[str, Any]:
        """What the manifest tells ipamd."""
        text = self.objects["ConfigMap isthmus-ipamd"]["data"]["ipamd.toml"]
        return tomllib.loads(text.replace(CERTIFICATES, str(self.pki)))

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(self.config["etcd_endpoints"])

    def own(self, name: str, words: Sequence[str]) -> list[str]:
        """A command of the manifest, with this node's directories in place of a container's."""
        program, *rest = words
        here = {DATA: str(self.directory / name), CERTIFICATES: str(self.pki)}
        for there, ours in here.items():
            rest = [word.replace(there, ours) for word in rest]
        return [str(PEERS / program), *rest]

    def start(self) -> None:
        for member, host in zip(self.site.members, self.hosts, strict=True):
            pod = self.objects[f"Deployment {ETCD}-{member.node}"]["spec"]["template"]["spec"]
            home = self.directory / member.node
            home.mkdir(exist_ok=True)
            with (home / "log").open("ab") as log, host.inside():
                self.processes[member.node] = subprocess.Popen(
                    self.own(member.node, pod["containers"][0]["command"]),
                    cwd=home,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        until(self.is_healthy, "etcd serves", timeout=60)

    def kill(self, *names: str) -> None:
        for name in names or tuple(self.processes):
            process = self.processes.pop(name)
            process.kill()
            process.wait(30)

    def is_healthy(self) -> bool:
        snapshot = self.upkeep()[-1]
        at = snapshot[: snapshot.index("snapshot")]
        return self.run([*at, "endpoint", "health", "--cluster"], check=False).returncode == 0

    def upkeep(self) -> list[list[str]]:
        """What the CronJob runs, one after another, beside the first member."""
        spec = self.objects[f"CronJob {UPKEEP}"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        containers = [*spec["initContainers"], *spec["containers"]]
        return [self.own("cp-1", one["command"]) for one in containers]

    def run(self, argv: Sequence[str], *, check: bool = True) -> "subprocess.CompletedProcess[str]":
        with self.observer.inside():
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ)
            )
        assert done.returncode == 0 or not check, f"{argv}: {done.stderr}"
        return done

    def restore(self) -> None:
        """As docs/kubernetes.md says, on each node from the one snapshot."""
        self.kill()
        cluster = ",".join(f"{one.node}={one.url(2480)}" for one in self.site.members)
        for member in self.site.members:
            home = self.directory / member.node
            (home / "data").rename(home / "data.old")
            self.run(
                [
                    *(str(PEERS / "etcdutl"), "snapshot", "restore"),
                    *(str(self.directory / "cp-1" / "snapshot.db"), "--data-dir"),
                    *(str(home / "data"), "--name", member.node, "--initial-cluster", cluster),
                    *("--initial-cluster-token", "isthmus"),
                    *("--initial-advertise-peer-urls", member.url(2480)),
                    *("--bump-revision", "1000000000", "--mark-compacted"),
                ]
            )
        self.start()


@pytest.fixture
def plane(namespaces: Callable[[str], Namespace], tmp_path: Path) -> Iterator[Plane]:
    switch = switched(namespaces("switch"))
    plane = Plane(tmp_path, [switch.plug(namespaces("cp")) for _ in range(3)], switch.host)
    made = [word for host in plane.hosts for word in ("--member", host.address)]
    subprocess.run(
        [sys.executable, "-m", "cli", "ipam", "certificates", "etcd", str(plane.pki), *made],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )
    try:
        plane.start()
        yield plane
    finally:
        plane.kill()


def test_three_members_are_kept_up_outlive_one_and_come_back_from_a_snapshot(
    plane: Plane, tmp_path: Path
) -> None:
    certificates = [
        f'{name} = "{plane.config[name]}"' for name in ("etcd_ca", "etcd_certificate", "etcd_key")
    ]
    place = ipamds.Site(
        tmp_path / "site", plane, Authority(tmp_path / "site" / "signer"), observer=plane.observer
    )
    ipamd = place.add(*certificates, host=plane.observer)
    try:
        ipamd.start()
        place.begin(("four", "10.244.0.0/16", "--block-length", "24"))
        for command in plane.upkeep():
            plane.run(command)
        plane.kill("cp-2")
        place.must("ipam", "pin", "n1", "10.244.7.0/24")
        with_two = json.loads(place.must("ipam", "blocks", "--json"))
        plane.restore()
        check = ("ipam", "check", "--socket", "/none", "--store", "/none")
        until(lambda: "frozen" in place.isthmus(*check).stdout, "it is noticed", timeout=60)
        place.must("ipam", "init", "--recover")
        recovered = place.must(*check)
        after = json.loads(place.must("ipam", "blocks", "--json"))
    finally:
        ipamd.stop()

    assert [row["cidr"] for row in with_two] == ["10.244.7.0/24"]
    assert after == []  # as when the snapshot was made
    assert recovered == "No problem found.\n"
    assert (tmp_path / "cp-1" / "snapshot.db").stat().st_size > 0
