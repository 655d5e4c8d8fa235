"""Whatever is wrong with a call or with the host: one JSON error with the right number, no harm.

Through the real launcher and agent.  All calls meet one node on which one container is attached,
and it stays so.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.agents import NETWORK, Machine, Pod, addresses, made_machine, until
from tests.kernel.launcher.process import Done
from tests.kernel.nodes import error_of

pytestmark = pytest.mark.kernel

MIB = 1 << 20
RANGES = NETWORK["ipam"]["ranges"]


def conf(**keys: Any) -> bytes:
    """The usual configuration with other *keys*; None leaves one out."""
    document = {key: value for key, value in {**NETWORK, **keys}.items() if value is not None}
    return json.dumps(document).encode()


def ipam(**keys: Any) -> bytes:
    return conf(ipam={**NETWORK["ipam"], **keys})


def runtime(**keys: Any) -> bytes:
    return conf(runtimeConfig=keys)


STDIN: dict[str, tuple[int, bytes]] = {
    "nothing": (6, b""),
    "white space": (6, b" \n"),
    "no JSON": (6, b"hello"),
    "truncated": (6, conf()[:-1]),
    "two documents": (6, conf() * 2),
    "a list": (6, b"[]"),
    "a number": (6, b"1"),
    "null": (6, b"null"),
    "NaN": (6, conf()[:-1] + b',"mtu":NaN}'),
    "not UTF-8": (6, conf()[:-1] + b',"x":"\xff"}'),
    "NUL": (6, conf() + b"\0"),
    "huge": (6, conf(padding="x" * MIB)),
    "huge rubbish": (6, b"x" * (3 * MIB)),
    "deep lists": (6, b"[" * 100_000),
    "deep objects": (6, b'{"a":' * 100_000),
    "deep and whole": (6, conf()[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "no name": (7, conf(name=None)),
    "name with a slash": (7, conf(name="a/b")),
    "name a number": (6, conf(name=1)),
    "unknown version": (1, conf(cniVersion="9.9.9")),
    "version a number": (6, conf(cniVersion=1)),
    "type a list": (7, conf(type=[])),
    "ipam a list": (7, conf(ipam=[])),
    "ranges a number": (7, ipam(ranges=1)),
    "ranges flat": (7, ipam(ranges=[{"subnet": "10.9.0.0/24"}])),
    "subnet rubbish": (7, ipam(ranges=[[{"subnet": "10.9.0.0/99"}]])),
    "range outside": (7, ipam(ranges=[[{"subnet": "10.9.0.0/24", "rangeStart": "10.8.0.1"}]])),
    "ranges overlap": (7, ipam(ranges=[*RANGES, *RANGES])),
    "route rubbish": (7, ipam(routes=[{"dst": "nowhere"}])),
    "flag a string": (7, conf(ipMasq="yes")),
    "mtu a string": (7, conf(mtu="big")),
    "mtu a bool": (7, conf(mtu=True)),
    "mtu too large": (7, conf(mtu=1 << 40)),
    "bridge too long": (7, conf(bridge="b" * 16)),
    "mode unknown": (7, conf(mode="magic")),
    "contradiction": (7, conf(hairpinMode=True, promiscMode=True)),
    "foreign masquerade": (2, conf(ipMasqBackend="iptables")),
    "prevResult a list": (6, conf(prevResult=[])),
    "ports a number": (7, runtime(portMappings=1)),
    "port out of range": (7, runtime(portMappings=[{"hostPort": 1, "containerPort": 99999}])),
    "rate without burst": (7, runtime(bandwidth={"ingressRate": 1000})),
    "address rubbish": (7, runtime(ips=["10.9.0.300/24"])),
    "mac rubbish": (7, runtime(mac="ff:ff")),
    "runtimeConfig a list": (7, conf(runtimeConfig=[])),
}

ENVIRONMENT: dict[str, dict[str, str]] = {
    "no container id": {"CNI_CONTAINERID": ""},
    "container id with a slash": {"CNI_CONTAINERID": "a/b"},
    "container id a path": {"CNI_CONTAINERID": ".."},
    "container id with a newline": {"CNI_CONTAINERID": "a\n"},
    "no interface": {"CNI_IFNAME": ""},
    "interface too long": {"CNI_IFNAME": "e" * 16},
    "interface with a slash": {"CNI_IFNAME": "a/b"},
    "interface with a colon": {"CNI_IFNAME": "a:b"},
    "interface with a space": {"CNI_IFNAME": "a b"},
    "interface a directory": {"CNI_IFNAME": ".."},
    "no namespace": {"CNI_NETNS": ""},
    "no path": {"CNI_PATH": ""},
    "unknown verb": {"CNI_COMMAND": "MAKE"},
    "verb in lower case": {"CNI_COMMAND": "add"},
    "arguments without a value": {"CNI_ARGS": "IP"},
    "arguments with a bad address": {"CNI_ARGS": "IP=10.9.0.300"},
    "arguments with a bad MAC": {"CNI_ARGS": "MAC=zz"},
}


@pytest.fixture(scope="module")
def node(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    directory = tmp_path_factory.mktemp("bad-input") / "node"
    with made_machine(directory, binary) as machine:
        machine.start()
        addresses(machine.add(machine.pod("resident")))
        machine.pod("victim")
        yield machine


@pytest.fixture
def victim(node: Machine) -> Iterator[Pod]:
    """A container for a call that fails; what was there before is there after it."""
    pod = node.pods["victim"]
    before = node.records(), node.links(), len(node.elements())
    yield pod

    assert pod.addresses() == []
    assert (node.records(), node.links(), len(node.elements())) == before
    assert node.launcher.spooled() == []
    assert node.problems() == []
    assert "Traceback" not in node.log.read_text()


@pytest.mark.parametrize(("code", "stdin"), STDIN.values(), ids=STDIN.keys())
def test_bad_configuration(node: Machine, victim: Pod, code: int, stdin: bytes) -> None:
    assert error_of(node.add(victim, stdin=stdin))["code"] == code


@pytest.mark.parametrize("verb", ["DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("stdin", [b"", b"{", b"x" * (2 * MIB), b"[" * 100_000, conf(name=1)])
def test_bad_configuration_of_other_verbs(
    node: Machine, victim: Pod, verb: str, stdin: bytes
) -> None:
    assert error_of(node.call(verb, victim, stdin=stdin))["code"] == 6


@pytest.mark.parametrize("variables", ENVIRONMENT.values(), ids=ENVIRONMENT.keys())
def test_bad_environment(node: Machine, victim: Pod, variables: dict[str, str]) -> None:
    error = error_of(node.add(victim, **variables))

    (name,) = variables
    assert error["code"] == 4
    assert name in str(error) or "containerID" in str(error)


def test_namespace_that_is_none(node: Machine, victim: Pod, tmp_path: Path) -> None:
    plain, fifo, directory, dangling = (tmp_path / name for name in ("file", "fifo", "dir", "link"))
    plain.write_text("not a namespace")
    os.mkfifo(fifo)
    directory.mkdir()
    dangling.symlink_to(tmp_path / "nowhere")
    paths = [plain, fifo, directory, dangling, tmp_path / "absent", Path("/dev/null")]
    paths += [Path("/proc/self/ns/mnt"), Path("/proc/self/ns/pid")]
    errors = {path: error_of(node.add(victim, CNI_NETNS=str(path))) for path in paths}

    assert {path: error["code"] for path, error in errors.items()} == dict.fromkeys(paths, 4)
    for path, error in errors.items():
        assert str(path) in str(error)


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_own_namespace(node: Machine, victim: Pod, verb: str, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(node.host.path)
    checked = conf(prevResult={"cniVersion": "1.1.0", "ips": [], "interfaces": []})
    stdin = checked if verb == "CHECK" else None
    for path in (node.host.path, "/proc/self/ns/net", str(link)):
        done = node.call(verb, victim, stdin=stdin, CNI_NETNS=path)

        assert error_of(done)["code"] == 8


def test_symbolic_link_to_a_namespace_works(node: Machine, victim: Pod, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(victim.path)
    given = addresses(node.add(victim, CNI_NETNS=str(link)))
    attached = victim.addresses()

    assert attached == list(given)
    assert node.delete(victim, CNI_NETNS=str(link)).status == 0


@pytest.mark.parametrize("path", ["fifo", "file", "absent", "mnt"])
def test_deletion_does_not_need_its_namespace(
    node: Machine, victim: Pod, tmp_path: Path, path: str
) -> None:
    node.add(victim)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    where = "/proc/self/ns/mnt" if path == "mnt" else str(tmp_path / path)

    assert node.delete(victim, CNI_NETNS=where).status == 0


def test_exhausted_range_names_itself_until_somebody_leaves(machine: Machine) -> None:
    single = [{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.5", "rangeEnd": "10.9.0.5"}]
    machine.network = json.loads(ipam(ranges=[single]))
    machine.start()
    first, second = machine.pod(), machine.pod()
    given = addresses(machine.add(first))
    error = error_of(machine.add(second))
    nothing = second.addresses(), len(machine.links()), len(machine.records())
    machine.delete(first)
    again = addresses(machine.add(second))

    assert error["code"] == 100
    assert "10.9.0.5" in error["msg"]
    assert nothing == ([], 1, 1)
    assert given == again == ("10.9.0.5",)


def test_without_nft_only_what_needs_it_fails(machine: Machine) -> None:
    machine.start(environment={"PATH": "/nonexistent"})
    masqueraded, plain = machine.pod(), machine.pod()
    error = error_of(machine.add(masqueraded))
    nothing = machine.links(), masqueraded.addresses()
    added = machine.add(plain, stdin=conf(ipMasq=False))

    assert error["code"] == 102
    assert "nft" in error["msg"]
    assert nothing == ([], [])
    assert plain.addresses() == list(addresses(added))
    assert machine.problems() == []
    assert machine.delete(plain).status == 0
    assert machine.delete(masqueraded).status == 0
    assert machine.leftovers() == []


def test_second_agent_refuses_and_the_first_goes_on(machine: Machine) -> None:
    machine.start()
    first = machine.process
    machine.process = None
    machine.start(wait=False)
    status, log = machine.wait_for_end(), machine.log.read_text()
    machine.process = first

    assert status == 1
    assert f"{machine.config.lock} is locked: another isthmus agent" in log
    assert machine.add(machine.pod()).status == 0


@contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system of a few hundred KiB at *directory*."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "isthmus-test", str(directory)]
    subprocess.run(mount, check=True, timeout=30)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, timeout=30)


@pytest.fixture
def cramped(binary: str, tmp_path: Path) -> Iterator[Machine]:
    with small_disk(tmp_path / "disk") as disk, made_machine(disk, binary) as machine:
        yield machine


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return ballast


def test_full_disk_is_told_and_nothing_is_lost_by_it(cramped: Machine) -> None:
    machine = cramped
    machine.start()
    pods = [machine.pod(f"c{number}") for number in range(4)]
    kept = {pod.container_id: addresses(machine.add(pod)) for pod in pods[:2]}
    ballast = fill(machine.state)
    refused: list[Done] = []

    def is_refused() -> bool:
        # The log of the store has room left over from before.
        refused.append(machine.add(pods[2]))
        return refused[-1].status != 0 or machine.delete(pods[2]).status != 0

    until(is_refused, "the disk is full")
    status, deleted = machine.call("STATUS"), machine.delete(pods[1])
    still = pods[0].addresses()
    ballast.unlink()
    until(lambda: machine.call("STATUS").status == 0, "there is room again")

    if refused[-1].status:
        assert error_of(refused[-1])["code"] == 11
    assert error_of(status)["code"] == 50
    if deleted.status:
        assert error_of(deleted)["code"] == 11
    assert still == list(kept["c0"])
    assert machine.delete(pods[1]).status == 0
    assert machine.delete(pods[2]).status == 0
    given = addresses(machine.add(pods[3]))
    assert not set(given) & set(kept["c0"])
    assert machine.problems() == []
    machine.kill()
    machine.start()
    assert machine.records() == {"c0": ("held", kept["c0"]), "c3": ("held", given)}


def test_deletion_that_can_be_kept_nowhere_is_told(cramped: Machine) -> None:
    machine = cramped
    machine.start()
    web = machine.pod("web")
    machine.add(web)
    machine.stop()
    ballast = fill(machine.state)
    refused = machine.delete(web)
    ballast.unlink()
    kept = machine.delete(web)
    machine.start()

    assert error_of(refused)["code"] == 11
    assert str(machine.launcher.spool) in str(error_of(refused))
    assert kept.status == 0
    assert machine.records() == {}
    assert machine.leftovers() == []


def test_agent_starts_on_a_full_disk_and_deletes(cramped: Machine) -> None:
    machine = cramped
    machine.start()
    web = machine.pod("web")
    machine.add(web)
    machine.kill()
    ballast = fill(machine.state)
    machine.start()
    status = machine.call("STATUS")
    machine.delete(web)
    ballast.unlink()
    until(lambda: machine.delete(web).status == 0, "the deletion is done")
    until(lambda: machine.call("STATUS").status == 0, "there is room again")

    assert status.status == 0 or error_of(status)["code"] == 50
    assert machine.records() == {}
    assert machine.leftovers() == []
    assert machine.problems() == []
