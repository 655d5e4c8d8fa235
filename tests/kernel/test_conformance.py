"""The protocol from outside: launcher and agent, every version and verb, as runtimes call them."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from cni.versions import SUPPORTED
from tests.kernel.agents import Machine, Pod, made_machine
from tests.kernel.launcher.process import Done

pytestmark = pytest.mark.kernel

Document = dict[str, Any]
NO_CHECK = ("0.1.0", "0.2.0", "0.3.0", "0.3.1")
OLD_FORM = ("0.1.0", "0.2.0")
NEWEST = SUPPORTED[-1]


@pytest.fixture(scope="module")
def machine(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One machine with its agent; every test has containers of its own."""
    with made_machine(tmp_path_factory.mktemp("node"), binary) as made:
        made.start()
        yield made


@pytest.fixture
def pod(machine: Machine) -> Iterator[Pod]:
    made = machine.pod()
    yield made
    for name in ("shop", "gc"):
        machine.delete(made, network=network(name=name))
    machine.remove(made)


def network(version: str | None = NEWEST, **keys: Any) -> Document:
    """A dual-stack network; what is None is left out."""
    ranges = [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd09::/64"}]]
    usual: Document = {
        "cniVersion": version,
        "name": "shop",
        "type": "isthmus",
        "ipam": {"type": "isthmus", "ranges": ranges},
    }
    return {key: value for key, value in (usual | keys).items() if value is not None}


def result(done: Done) -> Document:
    """The one document of a success."""
    assert done.status == 0, done
    found: Document = json.loads(done.stdout)
    return found


def error(done: Done) -> Document:
    """The one document of a failure: a code, a message, a version; 1 is the exit status."""
    assert done.status == 1, done
    found: Document = json.loads(done.stdout)
    assert set(found) - {"details"} == {"cniVersion", "code", "msg"}
    return found


def silent(done: Done) -> bool:
    assert done.status == 0, done
    return done.stdout == b""


def host_bits(address: str) -> str:
    return address.split("/")[1]


@pytest.mark.parametrize("version", SUPPORTED)
def test_one_life_in_every_version(machine: Machine, pod: Pod, version: str) -> None:
    conf = network(version)
    made = result(machine.add(pod, network=conf))
    later = conf if version in NO_CHECK else conf | {"prevResult": made}

    checked = machine.call("CHECK", pod, network=later)
    gone = [machine.delete(pod, network=later) for _ in range(2)]

    assert made["cniVersion"] == version
    if version in NO_CHECK:
        assert error(checked)["code"] == 1
        assert error(checked)["msg"] == "config version does not allow CHECK"
    else:
        assert silent(checked)
    assert all(map(silent, gone))
    assert pod.addresses() == []


@pytest.mark.parametrize("version", OLD_FORM)
def test_results_by_family(machine: Machine, pod: Pod, version: str) -> None:
    made = result(machine.add(pod, network=network(version)))

    assert set(made) == {"cniVersion", "ip4", "ip6", "dns"}
    assert set(made["ip4"]) == set(made["ip6"]) == {"ip", "gateway", "routes"}
    assert made["ip4"]["gateway"] == "10.9.0.1"
    assert made["ip6"]["routes"] == [{"dst": "::/0", "gw": "fd09::1"}]
    assert made["dns"] == {}


@pytest.mark.parametrize("version", [v for v in SUPPORTED if v not in OLD_FORM])
def test_results_by_interface(machine: Machine, pod: Pod, version: str) -> None:
    made = result(machine.add(pod, network=network(version, mtu=1400)))

    bridge, outer, inner = made["interfaces"]
    assert (bridge["name"], inner["name"], inner["sandbox"]) == ("cni0", "eth0", pod.path)
    assert "sandbox" not in bridge
    assert "sandbox" not in outer
    assert all(
        re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", each["mac"]) for each in (outer, inner)
    )
    assert [ip["interface"] for ip in made["ips"]] == [2, 2]
    assert [host_bits(ip["address"]) for ip in made["ips"]] == ["24", "64"]
    families = [ip.get("version") for ip in made["ips"]]
    if version in ("1.0.0", "1.1.0"):
        assert families == [None, None]
        assert "dns" not in made
    else:
        assert families == ["4", "6"]
        assert made["dns"] == {}
    assert inner.get("mtu") == (1400 if version == "1.1.0" else None)


def test_without_a_version_it_is_0_1_0(machine: Machine, pod: Pod) -> None:
    absent = result(machine.add(pod, network=network(None)))
    machine.delete(pod)
    empty = result(machine.add(pod, network=network("")))

    assert absent["cniVersion"] == empty["cniVersion"] == "0.1.0"
    assert "ip4" in absent


@pytest.mark.parametrize("verb", ["GC", "STATUS"])
@pytest.mark.parametrize("version", SUPPORTED)
def test_verbs_of_1_1_0_are_refused_before_it(machine: Machine, verb: str, version: str) -> None:
    done = machine.call(verb, network=network(version))

    if version == NEWEST:
        assert silent(done)
    else:
        assert (error(done)["code"], error(done)["cniVersion"]) == (1, version)
        assert error(done)["msg"] == f"config version does not allow {verb}"


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("version", ["9.9.9", "1.0", "abc", "01.0.0"])
def test_a_version_is_looked_up_and_not_compared(
    machine: Machine, pod: Pod, verb: str, version: str
) -> None:
    found = error(machine.call(verb, pod, network=network(version)))

    supported = " ".join(f'"{known}"' for known in SUPPORTED)
    assert (found["code"], found["msg"]) == (1, "incompatible CNI versions")
    assert found["details"] == f'config is "{version}", plugin supports [{supported}]'


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize(
    ("stdin", "code", "msg"),
    [
        (b"", 6, "cannot decode the network configuration"),
        (b"{", 6, "cannot decode the network configuration"),
        (b"[]", 6, "cannot decode the network configuration"),
        (b"null", 6, "cannot decode the network configuration"),
        (b'{"cniVersion": 1.0, "name": "shop"}', 6, None),
        (b'{"cniVersion": "9.9.9"}', 7, "missing network name"),
        (b'{"cniVersion": "9.9.9", "name": ""}', 7, "missing network name"),
        (
            b'{"cniVersion": "9.9.9", "name": "te%%st"}',
            7,
            "invalid characters found in network name",
        ),
        (b'{"cniVersion": "9.9.9", "name": "shop", "mtu": "x"}', 1, "incompatible CNI versions"),
    ],
)
def test_stdin_is_judged_in_the_reference_order(
    machine: Machine, pod: Pod, verb: str, stdin: bytes, code: int, msg: str | None
) -> None:
    found = error(machine.call(verb, pod, stdin=stdin))

    assert found["code"] == code
    assert msg is None or found["msg"] == msg


@pytest.mark.parametrize(
    ("verb", "missing"),
    [
        ("ADD", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
        ("CHECK", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("DEL", ["CNI_CONTAINERID", "CNI_IFNAME"]),
        ("GC", ["CNI_PATH"]),
    ],
)
def test_every_missing_variable_is_named_before_stdin_is_looked_at(
    machine: Machine, pod: Pod, verb: str, missing: list[str]
) -> None:
    nothing = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"), "")

    found = error(machine.call(verb, pod, stdin=b"{", **nothing))

    assert found["code"] == 4
    assert found["msg"] == f"required env variables [{','.join(missing)}] missing"


@pytest.mark.parametrize("verb", ["GC", "STATUS"])
def test_variables_of_an_attachment_are_not_looked_at_without_one(
    machine: Machine, verb: str
) -> None:
    odd = {"CNI_CONTAINERID": "?", "CNI_IFNAME": "../..", "CNI_NETNS": "/nowhere", "CNI_ARGS": "x"}

    assert silent(machine.call(verb, network=network(), **odd))


def test_version_needs_no_agent_and_no_input(machine: Machine) -> None:
    podman = {"CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy"}

    made = result(machine.call("VERSION", stdin=b'{"cniVersion": "1.0.0"}', **podman))

    assert made == {"cniVersion": "1.1.0", "supportedVersions": list(SUPPORTED)}


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_our_own_namespace_is_refused_whatever_the_verb(
    machine: Machine, pod: Pod, verb: str
) -> None:
    conf = network(prevResult={"cniVersion": NEWEST})

    found = error(machine.call(verb, pod, network=conf, CNI_NETNS=machine.host.path))

    assert found["code"] == 8


@pytest.mark.parametrize("netns", ["", "/run/netns/gone", "/etc/hostname"])
def test_del_needs_no_namespace_and_no_add(machine: Machine, pod: Pod, netns: str) -> None:
    before = machine.delete(pod, network=network(), CNI_NETNS=netns)
    machine.add(pod, network=network())

    after = machine.delete(pod, network=network(), CNI_NETNS=netns)

    assert silent(before)
    assert silent(after)
    assert pod.addresses() == []


@pytest.mark.parametrize("previous", ["", "0.2.0", "0.4.0", "1.0.0", "1.1.0"])
def test_del_takes_prev_result_as_it_comes(machine: Machine, pod: Pod, previous: str) -> None:
    made = result(machine.add(pod, network=network(previous or NEWEST)))

    assert silent(machine.delete(pod, network=network(prevResult=made if previous else {})))
    assert pod.addresses() == []


def test_an_add_without_del_is_refused_and_disturbs_nothing(machine: Machine, pod: Pod) -> None:
    made = result(machine.add(pod, network=network()))

    found = error(machine.add(pod, network=network()))

    assert found["code"] == 103
    assert silent(machine.call("CHECK", pod, network=network(prevResult=made)))


def test_check_without_prev_result_and_of_the_unknown(machine: Machine, pod: Pod) -> None:
    unknown = error(machine.call("CHECK", pod, network=network(prevResult={"ips": []})))
    machine.add(pod, network=network())
    missing = error(machine.call("CHECK", pod, network=network()))

    assert unknown["code"] == 3
    assert (missing["code"], missing["msg"]) == (7, "Required prevResult missing")


def test_check_says_what_is_gone(machine: Machine, pod: Pod) -> None:
    made = result(machine.add(pod, network=network()))
    address = made["ips"][0]["address"]
    pod.namespace.run("ip", "address", "delete", address, "dev", "eth0")

    found = error(machine.call("CHECK", pod, network=network(prevResult=made)))

    assert found["code"] == 104
    assert found["msg"] == f"Failed to match addr {address} on interface eth0"


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
@pytest.mark.parametrize("nobody", [[], None], ids=["empty", "null"])
def test_gc_ends_whoever_is_not_listed(
    machine: Machine, pod: Pod, key: str, nobody: list[object] | None
) -> None:
    conf = network(name="gc")
    machine.add(pod, network=conf)
    stays = [{"containerID": pod.container_id, "ifname": "eth0"}]

    first = machine.call("GC", network=conf | {key: stays})
    kept = pod.addresses()
    second = machine.call("GC", network=conf | {key: nobody})

    assert silent(first)
    assert silent(second)
    assert (len(kept), pod.addresses()) == (2, [])


def test_gc_without_a_list_ends_nobody(machine: Machine, pod: Pod) -> None:
    conf = network(name="gc")
    machine.add(pod, network=conf)

    assert silent(machine.call("GC", network=conf))
    assert len(pod.addresses()) == 2


def test_gc_with_both_keys_as_newer_runtimes_send_them(machine: Machine, pod: Pod) -> None:
    conf = network(name="gc")
    machine.add(pod, network=conf)
    stays = [{"containerID": pod.container_id, "ifname": "eth0"}]

    machine.call(
        "GC",
        network=conf | {"cni.dev/valid-attachments": stays, "cni.dev/attachments": stays},
    )

    assert len(pod.addresses()) == 2


def test_what_containerd_sends_in_its_own_case(machine: Machine, pod: Pod) -> None:
    runtime = {
        "portMappings": [
            {"HostPort": 18080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
            {"HostPort": 0, "ContainerPort": 81, "Protocol": "tcp", "HostIP": ""},
        ],
        "bandwidth": {
            "IngressRate": 8000000,
            "IngressBurst": 4294967295,
            "EgressRate": 8000000,
            "EgressBurst": 4294967295,
        },
        "dns": {"Servers": ["10.9.0.53"], "Searches": ["shop.example"], "Options": ["ndots:5"]},
        "io.kubernetes.cri.pod-annotations": {"a": "b"},
    }
    args = (
        "K8S_POD_UID=u;IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID=i;K8S_POD_NAMESPACE=n;"
        "K8S_POD_NAME=web"
    )
    conf = network(runtimeConfig=runtime, capabilities={"portMappings": True})

    made = result(machine.add(pod, network=conf, CNI_ARGS=args))
    checked = machine.call("CHECK", pod, network=conf | {"prevResult": made}, CNI_ARGS=args)

    assert made["dns"] == {
        "nameservers": ["10.9.0.53"],
        "search": ["shop.example"],
        "options": ["ndots:5"],
    }
    assert silent(checked)
    elements = [str(element) for element in machine.elements() if "18080" in str(element)]
    assert elements != []


def test_what_podman_sends(machine: Machine, pod: Pod) -> None:
    runtime = {
        "aliases": {"shop": ["web", "90212c314deb"]},
        "portMappings": [
            {"hostPort": 18081, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"}
        ],
    }
    args = "IgnoreUnknown=1;K8S_POD_NAME=pt2;MAC=02:aa:bb:cc:dd:09;IP=10.9.0.99"

    made = result(machine.add(pod, network=network("1.0.0", runtimeConfig=runtime), CNI_ARGS=args))

    assert made["interfaces"][2]["mac"] == "02:aa:bb:cc:dd:09"
    assert made["ips"][0]["address"] == "10.9.0.99/24"


@pytest.mark.parametrize(
    ("args", "msg"),
    [
        ("FOO", 'ARGS: invalid pair "FOO"'),
        ("A=B=C", 'ARGS: invalid pair "A=B=C"'),
        ("FOO=BAR", 'ARGS: unknown args ["FOO=BAR"]'),
    ],
)
def test_cni_args_are_judged_as_the_reference_does(
    machine: Machine, pod: Pod, args: str, msg: str
) -> None:
    found = error(machine.add(pod, network=network(), CNI_ARGS=args))

    assert (found["code"], found["msg"]) == (4, msg)


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_ipam_plugin_answers_as_one(machine: Machine, pod: Pod, version: str) -> None:
    ranges = [[{"subnet": "10.7.0.0/24"}]]
    conf = network(
        version, name="lan", type="bridge", ipam={"type": "isthmus-ipam", "ranges": ranges}
    )

    made = result(machine.add(pod, network=conf, name="isthmus-ipam"))
    gone = machine.delete(pod, network=conf, name="isthmus-ipam")

    assert "interfaces" not in made
    if version in OLD_FORM:
        assert made["ip4"]["gateway"] == "10.7.0.1"
    else:
        (address,) = made["ips"]
        assert "interface" not in address
        assert address["gateway"] == "10.7.0.1"
    assert silent(gone)
    assert pod.addresses() == []


def test_a_later_plugin_of_a_chain_adds_to_what_there_was(machine: Machine, pod: Pod) -> None:
    previous = {
        "cniVersion": "0.4.0",
        "interfaces": [{"name": "wg0", "sandbox": pod.path}],
        "ips": [{"version": "4", "interface": 0, "address": "172.16.0.2/24"}],
    }
    conf = network("0.4.0", prevResult=previous)

    made = result(machine.add(pod, network=conf))

    assert [each["name"] for each in made["interfaces"]][::3] == ["wg0", "eth0"]
    assert [ip["interface"] for ip in made["ips"]] == [0, 3, 3]
    assert silent(machine.call("CHECK", pod, network=conf | {"prevResult": made}))


def test_nothing_is_left_when_all_have_gone(machine: Machine) -> None:
    pods = [machine.pod() for _ in range(3)]
    for each in pods:
        result(machine.add(each, network=network(ipMasq=True)))
    for each in pods:
        machine.delete(each, network=network(ipMasq=True))

    assert machine.problems() == []
    assert machine.leftovers() == []
