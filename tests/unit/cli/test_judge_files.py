"""Findings about network lists, plugins, and what other plugins left."""

import json
from pathlib import Path

from cli.findings import Severity
from cli.judge_files import (
    ConfFile,
    Network,
    judge_binaries,
    judge_leftovers,
    judge_standalone,
    networks,
)
from cli.places import CONF

OURS = ConfFile("10-isthmus.conflist", (CONF / "10-isthmus.conflist").read_bytes())


def conf(file: str, **document: object) -> ConfFile:
    return ConfFile(file, json.dumps(document).encode())


def test_our_own_list_alone_is_fine() -> None:
    found, findings = networks([OURS])

    assert findings == []
    assert [(one.name, one.bridge) for one in found] == [("isthmus", "cni0")]
    assert [str(subnet) for subnet in found[0].subnets] == [
        "10.66.0.0/16",
        "fd66:6973:7468::/64",
    ]


def test_without_a_list_of_ours_runtimes_do_not_know_of_us() -> None:
    _, findings = networks([])

    assert [finding.severity for finding in findings] == [Severity.ERROR]


def test_a_foreign_list_that_sorts_first_is_an_error() -> None:
    foreign = conf("05-cilium.conflist", name="cilium", plugins=[{"type": "cilium-cni"}])

    _, findings = networks([OURS, foreign])

    assert [finding.what for finding in findings] == [
        "05-cilium.conflist sorts before 10-isthmus.conflist"
    ]


def test_a_foreign_list_that_sorts_later_is_fine() -> None:
    foreign = conf("87-podman.conflist", name="podman", plugins=[{"type": "bridge"}])

    assert networks([foreign, OURS])[1] == []


def test_files_that_runtimes_do_not_load_are_not_looked_at() -> None:
    assert networks([ConfFile("00-old.conflist.bak", b"junk"), OURS])[1] == []


def test_a_broken_first_file_is_graver_than_a_broken_later_one() -> None:
    _, first = networks([ConfFile("00-a.conf", b"{"), OURS])
    _, later = networks([ConfFile("99-a.conf", b"{"), OURS])

    assert first[0].severity is Severity.ERROR
    assert [finding.severity for finding in later] == [Severity.WARNING]


def test_a_list_without_name_type_or_plugins_is_told() -> None:
    broken = [
        conf("20-a.conflist", plugins=[{"type": "x"}]),
        conf("21-b.conflist", name="b", plugins=[{}]),
        conf("22-c.conflist", name="c"),
        ConfFile("23-d.json", b"[]"),
    ]

    _, findings = networks([OURS, *broken])

    assert [finding.what.rpartition(": ")[2] for finding in findings] == [
        'it has no "name"',
        'a plugin of it has no "type"',
        'it has neither "plugins" nor a "type"',
        "it is not a JSON object",
    ]


def test_a_list_of_ours_that_every_add_would_refuse_is_an_error() -> None:
    wrong = conf(
        "10-isthmus.conflist",
        name="isthmus",
        cniVersion="1.0.0",
        plugins=[{"type": "isthmus", "mode": "quantum"}],
    )

    found, findings = networks([wrong])

    assert found == []
    assert "mode" in findings[0].what


def test_a_plugin_that_a_list_calls_must_be_there() -> None:
    network = Network(file="f", name="n", plugins=("isthmus", "portmap"))

    findings = judge_binaries([network], {"isthmus": "1"}, {})

    assert [finding.what for finding in findings] == [
        "the plugin portmap is not in the directory of plugins"
    ]


def test_a_plugin_that_was_replaced_is_a_warning() -> None:
    findings = judge_binaries([], {"isthmus": "2"}, {"isthmus": "1", "isthmus-ipam": "1"})

    assert [finding.severity for finding in findings] == [Severity.WARNING]


def test_leftovers_of_others_are_named_but_our_own_bridge_is_not() -> None:
    findings = judge_leftovers(["cni0", "flannel.1", "cali12", "eth0"], ["cbr"], {"cni0"})

    assert [finding.what.split(" is there")[0].split(" are there")[0] for finding in findings] == [
        "the link flannel.1",
        "1 links of Calico",
        "/var/lib/cni/networks/cbr has addresses that host-local gave",
    ]


def test_a_bridge_cni0_that_no_network_of_ours_uses_is_a_leftover() -> None:
    assert len(judge_leftovers(["cni0"], [], [])) == 1


def test_a_standalone_network_needs_the_program() -> None:
    alone, bound = (Network(file="f", name="n", standalone=one) for one in (True, False))
    program = Path("/opt/isthmus/isthmus")

    assert len(judge_standalone([alone, bound], program, is_there=False)) == 1
    assert judge_standalone([alone, bound], program, is_there=True) == []
