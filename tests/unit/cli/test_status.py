"""How the agent is, for people and for programs."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from agent.admin import Status
from cli.status import span
from tests.unit.cli.conftest import Agent, Run

GOOD = Status(
    version="0.1.0", pid=7, boot_id="b", uptime_s=7300, serving=True, attachments=3,
    last_reconcile_s=None, resident_bytes=40 * 2**20, store="/var/lib/isthmus/isthmus.db",
)  # fmt: skip


def test_an_agent_that_serves_is_fine(run: Run, agent: Agent) -> None:
    path = agent(lambda op: {"status": asdict(GOOD)})

    result = run("status", "--socket", path)

    assert result.exit_code == 0
    assert "serving, version 0.1.0, pid 7" in result.output
    assert "40 MiB" in result.output
    assert "not yet" in result.output


def test_an_agent_that_does_not_serve_is_a_problem_with_reasons(run: Run, agent: Agent) -> None:
    bad = asdict(GOOD) | {"serving": False, "reasons": ["disk full"]}
    path = agent(lambda op: {"status": bad})

    result = run("status", "--socket", path)

    assert result.exit_code == 1
    assert "disk full" in result.output


def test_a_node_of_a_cluster_shows_its_blocks_and_what_is_wrong(run: Run, agent: Agent) -> None:
    part = {
        "node": "n1",
        "node_state": "active",
        "epoch": 3,
        "confirmed": False,
        "connected": False,
        "trouble": "nobody answers",
        "outlook": {"": "ipamd refused another block: full"},
        "blocks": [
            {"cidr": "10.1.0.0/26", "pool": "p", "state": "lost", "used": 2, "size": 61},
        ],
        "mirror_waiting": 4,
        "mirror_lag_s": 2.04,
    }
    path = agent(lambda op: {"status": asdict(GOOD) | {"cluster": part}})

    lines = [" ".join(line.split()) for line in run("status", "--socket", path).output.splitlines()]

    assert lines[-5:] == [
        "node n1, active, epoch 3 NOT confirmed in this boot",
        "ipamd NOT connected: nobody answers",
        "block 10.1.0.0/26 of pool p, lost, 2 of 61 in use",
        "pool default: ipamd refused another block: full",
        "mirror 4 changes waiting, 2.0 s behind",
    ]


def test_a_node_that_routes_shows_how_others_are_reached(run: Run, agent: Agent) -> None:
    routing = {
        "mode": "auto",
        "direct": 2,
        "tunnelled": 4,
        "mtu": 1450,
        "in_sync": False,
        "problems": ["blocks of node c are out of reach"],
    }
    mesh = {
        "routing": routing,
        "masquerade": {"pools": ["four"], "kept": [], "elements": 7},
        "trouble": "nft is not there",
    }
    path = agent(lambda op: {"status": asdict(GOOD) | {"mesh": mesh}})

    lines = [" ".join(line.split()) for line in run("status", "--socket", path).output.splitlines()]

    assert lines[-4:] == [
        "routes auto: 2 direct, 4 through VXLAN; MTU of pods 1450, as remembered: ipamd has not "
        "told yet",
        "routes blocks of node c are out of reach",
        "masquerade four; 7 ranges",
        "trouble nft is not there",
    ]


def test_a_node_of_kubernetes_shows_which_and_what_keeps_it_from_the_api_server(
    run: Run, agent: Agent
) -> None:
    kubernetes = {
        "node": "a",
        "uid": "u-1",
        "pod_cidrs": ["10.1.0.0/24", "fd01::/120"],
        "pods": 3,
        "trouble": "GET /api/v1/pods: forbidden",
        "events_dropped": 0,
    }
    path = agent(lambda op: {"status": asdict(GOOD) | {"kubernetes": kubernetes}})

    lines = [" ".join(line.split()) for line in run("status", "--socket", path).output.splitlines()]

    assert lines[-1] == (
        "Kubernetes Node a, pod CIDRs 10.1.0.0/24 and fd01::/120, 3 pods known; "
        "GET /api/v1/pods: forbidden"
    )


def test_a_node_that_announces_shows_for_what_it_answers_and_whom_it_does_not_hear(
    run: Run, agent: Agent
) -> None:
    announcing = {
        "addresses": ["192.0.2.1", "2001:db8::1"],
        "bids": 4,
        "hears": ["b"],
        "silent": ["c"],
        "unfit": "",
        "owners": {"192.0.2.1": "a", "192.0.2.2": "b", "192.0.2.3": "b", "2001:db8::1": "a"},
    }
    path = agent(lambda op: {"status": asdict(GOOD) | {"announcing": announcing}})

    last = [" ".join(line.split()) for line in run("status", "--socket", path).output.splitlines()]

    assert last[-2:] == [
        "announces 192.0.2.1 2001:db8::1 (could answer for 4); hears 1 nodes; silent: c",
        "answers b: 192.0.2.2 192.0.2.3",
    ]


def test_programs_get_the_whole_status(run: Run, agent: Agent) -> None:
    path = agent(lambda op: {"status": asdict(GOOD)})

    found = json.loads(run("status", "--json", "--socket", path).output)

    assert found == json.loads(json.dumps(asdict(GOOD)))


def test_without_an_agent_the_exit_status_is_three(run: Run, tmp_path: Path) -> None:
    result = run("status", "--socket", tmp_path / "none")

    assert result.exit_code == 3
    assert "systemctl start isthmus-agent" in result.output


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (150, "2 min"), (7300, "2 h"), (9e5, "10 d")]
)
def test_a_span_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text
