"""A cluster begun, looked at, and a node taken out of it, at the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.ipam_cluster import with_ports
from ipam.rpc import ipamd_pb2 as pb
from tests.unit.cli.conftest import Run, Served


def claim(node: str) -> list[tuple[str, Any]]:
    return [
        ("Register", pb.RegisterRequest(node=node, uid=f"uid-{node}", boot_id="b", instance="i")),
        (
            "Claim",
            pb.ClaimRequest(node=node, uid=f"uid-{node}", epoch=1, nonce="x", families=[4]),
        ),
        (
            "Mirror",
            pb.MirrorRequest(
                node=node,
                uid=f"uid-{node}",
                epoch=1,
                sequence=1,
                leases=[
                    pb.MirroredLease(
                        network="n",
                        container_id="c" * 64,
                        ifname="eth0",
                        addresses=["10.9.0.5"],
                        pod="shop/web",
                    )
                ],
            ),
        ),
    ]


def begin(run: Run, cluster: Served) -> str:
    """Begin the cluster with a pool of one block and a node that has it; returns the block."""
    for words in (("init",), ("pools", "create", "p", "10.9.0.0/26")):
        done = run("ipam", *words, *cluster.options)
        assert done.exit_code == 0, done.output
    granted = cluster.as_node("a", *claim("a"))[1]
    return str(granted.blocks[0].cidr)


def test_a_cluster_is_begun_once(run: Run, cluster: Served) -> None:
    first = run("ipam", "init", *cluster.options)
    again = run("ipam", "init", *cluster.options)
    unless = run("ipam", "init", "--if-new", *cluster.options)

    assert (first.exit_code, again.exit_code, unless.exit_code) == (0, 1, 0)
    assert first.output.endswith(": begun\n")
    assert unless.output == first.output.replace("begun", "there already")
    assert "--recover" in again.output


def test_blocks_nodes_holders_are_shown(run: Run, cluster: Served) -> None:
    block = begin(run, cluster)
    blocks = run("ipam", "blocks", *cluster.options)
    none = run("ipam", "blocks", "--node", "b", *cluster.options)
    nodes = json.loads(run("ipam", "nodes", "--json", *cluster.options).output)
    who = run("ipam", "who", "shop/web", *cluster.options)
    show = run("ipam", "show", "10.9.0.5", *cluster.options)
    nobody = run("ipam", "show", "10.8.0.5", *cluster.options)

    assert blocks.output.splitlines()[-1].split() == [block, "a", "p", "active", "1"]
    assert none.output == "No block is held.\n"
    assert [(node["name"], node["alive"], node["blocks"]) for node in nodes] == [
        ("a", True, [block])
    ]
    assert who.output.splitlines()[-1].split() == [
        "10.9.0.5",
        "shop/web",
        "a",
        "n",
        "cccccccccccc",
        "eth0",
    ]
    assert show.output.startswith(f"10.9.0.5 is in block {block} of pool p, which node a has")
    assert "shop/web" in show.output
    assert nobody.output.splitlines()[0] == "10.8.0.5 is in no block that a node has."


def test_a_node_is_fenced_only_when_it_is_not_alive_or_by_force(run: Run, cluster: Served) -> None:
    block = begin(run, cluster)
    drained = run("ipam", "drain", "a", *cluster.options)
    back = run("ipam", "drain", "a", "--undo", *cluster.options)
    alive = run("ipam", "drain", "a", "--fenced", *cluster.options)
    forced = run("ipam", "drain", "a", "--fenced", "--force", "--json", *cluster.options)
    check = run("ipam", "check", *cluster.options)
    fixed = run("ipam", "check", "--fix", *cluster.options)
    left = run("ipam", "blocks", *cluster.options)

    assert (drained.exit_code, back.exit_code, alive.exit_code) == (0, 0, 1)
    assert drained.output == f"node a: draining, {block}\n"
    assert "alive" in alive.output
    assert json.loads(forced.output)["state"] == "fenced"
    assert check.exit_code == 1
    assert f"leak: {block}" in check.output
    assert f"will release {block}" in fixed.output
    assert f"done: release {block}" in fixed.output
    assert left.output == "No block is held.\n"


def test_a_block_that_is_used_is_not_released(run: Run, cluster: Served) -> None:
    block = begin(run, cluster)
    used = run("ipam", "release", block, *cluster.options)
    unknown = run("ipam", "release", "10.9.9.0/26", *cluster.options)

    assert (used.exit_code, unknown.exit_code) == (1, 1)
    assert "not fenced" in used.output
    assert "no node has a block 10.9.9.0/26" in unknown.output


def test_settings_are_shown_and_changed(run: Run, cluster: Served) -> None:
    run("ipam", "init", *cluster.options)
    changed = run(
        "ipam", "settings", "--quarantine-s", "0", "--unconfirmed-boots", *cluster.options
    )
    shown = json.loads(run("ipam", "settings", "--json", *cluster.options).output)
    table = run("ipam", "settings", *cluster.options).output
    wrong = run("ipam", "settings", "--blocks-per-node", "-1", *cluster.options)

    assert changed.exit_code == 0
    assert (shown["quarantine_s"], shown["unconfirmed_boots"]) == (0.0, True)
    assert shown["blocks_per_node"] == 32
    assert ["unconfirmed_boots", "yes"] in [line.split() for line in table.splitlines()]
    assert wrong.exit_code == 1


@pytest.mark.parametrize("more", [("--fenced",), ("--wiped",), ("--force",)])
def test_undo_goes_alone(run: Run, more: tuple[str, ...]) -> None:
    assert run("ipam", "drain", "a", "--undo", *more, "--ipamd", "h:1").exit_code == 2


@pytest.mark.parametrize("pod", ["nopod", "/web", "shop/", "a/b/c"])
def test_a_pod_is_named_with_its_namespace(run: Run, pod: str) -> None:
    refused = run("ipam", "who", pod, "--ipamd", "h:1")

    assert refused.exit_code == 2
    assert "NAMESPACE/NAME is needed, as default/web-0" in refused.output


def test_without_an_ipamd_it_is_said_how_to_name_one(run: Run, tmp_path: Path) -> None:
    unnamed = run("ipam", "nodes")
    malformed = run("ipam", "nodes", "--ipamd", "somewhere")
    no_files = run("ipam", "nodes", "--ipamd", "127.0.0.1:1", "--identity", tmp_path)

    assert (unnamed.exit_code, malformed.exit_code, no_files.exit_code) == (1, 2, 1)
    assert "--ipamd HOST:PORT" in unnamed.output
    assert "'somewhere': give HOST:PORT" in malformed.output
    assert "10.0.0.1:9476" in malformed.output
    assert "admin.pem: No such file" in no_files.output


def test_an_ipamd_that_is_away_has_an_exit_status_of_its_own(run: Run, cluster: Served) -> None:
    away = run("ipam", "nodes", "--ipamd", "127.0.0.1:1", "--identity", cluster.identity)

    assert away.exit_code == 3
    assert "127.0.0.1:1: Connection refused" in away.output


def test_a_block_is_pinned_to_a_node_and_let_go(run: Run, cluster: Served) -> None:
    for words in (("init",), ("pools", "create", "p", "10.9.0.0/24")):
        assert run("ipam", *words, *cluster.options).exit_code == 0
    pinned = run("ipam", "pin", "b", "10.9.0.64/26", "10.9.0.128/26", *cluster.options)
    refused = run("ipam", "pin", "c", "10.9.0.64/26", *cluster.options)
    shown = run("ipam", "blocks", "--node", "b", *cluster.options)
    undone = run("ipam", "pin", "b", "10.9.0.64/26", "--undo", *cluster.options)

    assert "10.9.0.128/26: pinned to b" in pinned.output
    assert (refused.exit_code, refused.output.count("is b's (pinned)")) == (1, 1)
    assert shown.output.count("pinned") == 2
    assert undone.output == "10.9.0.64/26: not pinned\n"


def test_services_without_addresses_are_told_so_and_how_the_others_look(
    run: Run, cluster: Served
) -> None:
    run("ipam", "init", *cluster.options)

    none = run("ipam", "services", *cluster.options)

    assert none.output == "No Service has an address of a pool.\n"
    assert with_ports(("shop/web", ["TCP/80", "UDP/53"])) == "shop/web (TCP/80, UDP/53)"
