"""One life of the agent over a kernel of values."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from agent.client import AgentAway, ask
from agent.config import AgentConfig
from agent.daemon import Daemon, main, resident_bytes
from agent.placement import InstallConfig
from agent.reconciler import Reconciler
from agent.version import VERSION
from agent.wiring import Wired, lock_state
from cni.attachment import host_name
from ipam.blocks import Blocks
from ipam.calls import PoolRow, Update
from ipam.leases import State
from ipam.store import Snapshot
from tests.unit.agent.test_server import Launcher, until
from tests.unit.cni.fakes import WHO, World

ROOT = Path(__file__).parents[3]


@pytest.fixture
def wired(world: World, tmp_path: Path) -> Wired:
    config = AgentConfig(
        socket=tmp_path / "agent.sock", state_dir=tmp_path, reconcile_interval_s=3600
    )
    return at_interval(world, config)


def at_interval(world: World, config: AgentConfig) -> Wired:
    kernel = world.kernel
    reconciler = Reconciler(world.node, world.leases, kernel, kernel.resync, 0)  # type: ignore[arg-type]
    return Wired(config, world.node, world.leases, kernel, kernel, reconciler)  # type: ignore[arg-type]


def test_a_wrong_configuration_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("colour = 1\n")

    status = main(path)

    assert status == 2
    assert f"{path}: unknown key 'colour'" in capsys.readouterr().err


def test_an_agent_that_finds_another_says_so_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(f'state_dir = "{tmp_path}"\nsocket = "{tmp_path}/agent.sock"\n')
    held = lock_state(tmp_path / "lock")
    done = subprocess.run(
        [sys.executable, "-m", "cli", "agent", "--config", str(path)],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=30,
    )
    os.close(held)

    line = json.loads(done.stderr)
    assert done.returncode == 1
    assert line["msg"] == "agent cannot start"
    assert "another isthmus agent or standalone program is at work" in line["error"]


class Life:
    """What somebody else does while the agent runs, ended by SIGTERM."""

    def __init__(self, wired: Wired, world: World) -> None:
        self.path = wired.config.socket
        self.world = world
        self.status: dict[str, Any] = {}
        self.answers: list[int] = []
        self.failures: list[Exception] = []

    def __call__(self) -> None:
        until(self.path.exists)
        try:
            self.status = ask(self.path, {"op": "status"})
            with Launcher(self.path) as launcher:
                launcher.send(self.world.request("ADD", self.world.conf()))
                self.answers.append(launcher.answer().status)
                launcher.acknowledge()
        except (OSError, AssertionError, AgentAway) as exc:
            self.failures.append(exc)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)


def test_from_start_to_a_graceful_end(wired: Wired, world: World) -> None:
    life = Life(wired, world)
    beside = threading.Thread(target=life)
    beside.start()

    asyncio.run(Daemon(wired).run())
    beside.join()

    assert life.failures == []
    assert life.answers == [0]
    assert life.status["status"]["version"] == VERSION
    assert world.record().state is State.HELD
    assert host_name(WHO) in world.kernel.links
    assert world.kernel.steps[0] == "resync"


def test_requests_are_counted_and_logged(
    wired: Wired, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    daemon = Daemon(wired)

    daemon._serve(world.request("ADD", world.conf()))
    daemon._serve(world.request("ADD", world.conf(), netns="/run/netns/no-such-red"))
    daemon._serve(world.request("STATUS", world.conf()))

    lines = [each.__dict__ for each in caplog.records if each.message == "request"]
    assert [(line["verb"], line["code"], line["container_id"]) for line in lines] == [
        ("ADD", "0", "c1"),
        ("ADD", "4", "c1"),
    ]
    assert "no-such-red" in lines[1]["error"]
    assert daemon._requests.ended == {("ADD", "0"): 1, ("ADD", "4"): 1, ("STATUS", "0"): 1}


def test_an_undelivered_add_is_undone(wired: Wired, world: World) -> None:
    daemon, asked = Daemon(wired), world.request("ADD", world.conf())
    daemon._serve(asked)

    daemon._undo(asked)

    assert world.record().state is State.RESERVED


def test_status_comes_from_memory(wired: Wired, world: World) -> None:
    world.made()
    world.node.spool.add(world.request("DEL", world.conf(), container_id="c9"))

    status = Daemon(wired).status()

    assert (status.version, status.pid, status.serving) == (VERSION, os.getpid(), True)
    assert (status.attachments, status.reservations, status.spooled) == (1, 0, 1)
    assert (status.in_flight, status.queued, status.last_reconcile_s) == (0, 0, None)
    assert status.resident_bytes > 1 << 20


def test_a_node_that_is_not_ready_says_why(wired: Wired, world: World) -> None:
    world.ready = "disk full"

    status = Daemon(wired).status()

    assert (status.serving, status.reasons) == (False, ("disk full",))


def test_upkeep_replays_deletions_and_lets_reservations_expire(wired: Wired, world: World) -> None:
    world.made()
    world.leases.abandon(WHO).result()
    world.made(container_id="c2", ifname="net1")
    world.clock.advance(60)
    world.node.spool.add(world.request("DEL", world.conf(), container_id="c2", ifname="net1"))

    Daemon(wired)._tick()

    assert world.leases.records() == []
    assert world.node.spool.waiting() == 0


def test_a_round_is_made_when_it_is_due(world: World, tmp_path: Path) -> None:
    daemon = Daemon(at_interval(world, AgentConfig(state_dir=tmp_path, reconcile_interval_s=0)))

    daemon._tick()

    assert "resync" in world.kernel.steps
    assert daemon.status().last_reconcile_s is not None
    assert daemon._rounds.rounds == 1


def test_no_round_is_made_before_it_is_due(wired: Wired, world: World) -> None:
    Daemon(wired)._tick()

    assert "resync" not in world.kernel.steps


def test_upkeep_that_fails_is_counted_and_goes_on(wired: Wired, world: World) -> None:
    world.node.spool.directory.parent.mkdir(exist_ok=True)
    world.node.spool.directory.touch()  # a file where the folder should be
    daemon = Daemon(wired)

    daemon._tick()

    assert daemon._rounds.failed == 1


def test_what_was_known_of_bridges_is_forgotten_when_something_went(
    wired: Wired, world: World
) -> None:
    daemon = Daemon(wired)

    daemon._lost()

    assert (world.kernel.bridges_forgotten, world.kernel.host_forgotten) == (1, 1)
    assert daemon._drift.is_set()


def test_the_metrics_page_has_a_reading_of_it_all(wired: Wired, world: World) -> None:
    daemon = Daemon(wired)
    daemon._serve(world.request("ADD", world.conf()))
    registry = CollectorRegistry()
    registry.register(daemon)  # type: ignore[arg-type]

    page = generate_latest(registry).decode()

    assert "isthmus_attachments 1.0\n" in page
    assert 'isthmus_cni_requests_total{code="0",verb="ADD"} 1.0\n' in page
    assert "isthmus_ready 1.0\n" in page


def test_an_operator_sees_and_ends_attachments(wired: Wired, world: World) -> None:
    world.made()
    daemon = Daemon(wired)

    listed = daemon._admin({"op": "attachments"})
    checked = daemon._admin({"op": "ipam-check"})

    assert json.dumps(listed).count('"c1"') == 1
    assert checked["problems"] == []


def test_resident_memory_is_in_bytes() -> None:
    assert 1 << 22 < resident_bytes() < 1 << 36


def test_nftables_follows_the_pools_of_the_cluster(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.daemon._DRIFT_PAUSE_S", 0.0)
    pool = PoolRow(name="p", cidr=ip_network("10.0.0.0/8"), masquerade=True)
    blocks = Blocks(
        world.leases,
        Snapshot(),
        boot_id="b",
        new_uid=lambda: "u",
        pod_of=lambda record: "",
        clock=lambda: 0.0,
    )
    config = AgentConfig(state_dir=tmp_path, reconcile_interval_s=3600)
    wired = replace(at_interval(world, config), node=replace(world.node, blocks=blocks))
    daemon = Daemon(replace(wired, blocks=blocks))
    blocks.streamed(Update(revision=1))
    quiet = daemon._is_due()
    blocks.streamed(Update(revision=2, with_pools=True, pools=(pool,)))

    assert (quiet, daemon._is_due()) == (False, True)


def test_the_network_list_is_put_once_an_add_can_be_served(world: World, tmp_path: Path) -> None:
    (tmp_path / "launcher").write_bytes(b"program")
    (tmp_path / "10-isthmus.conflist").write_bytes(b"{}")
    (tmp_path / "net.d").mkdir()
    install = InstallConfig(
        network_list=tmp_path / "10-isthmus.conflist",
        launcher=tmp_path / "launcher",
        bin_dir=tmp_path / "bin",
        conf_dir=tmp_path / "net.d",
    )
    wired = at_interval(world, AgentConfig(state_dir=tmp_path, install=install))
    reasons = ["no block yet"]
    wired.node = replace(world.node, ready=lambda: reasons[0])
    daemon = Daemon(wired)

    daemon._tick()
    before = sorted(os.listdir(install.bin_dir)), os.listdir(install.conf_dir)
    reasons[0] = ""
    daemon._tick()

    assert before == (["isthmus", "isthmus-ipam"], [])
    assert os.listdir(install.conf_dir) == ["10-isthmus.conflist"]


def test_a_new_node_without_a_block_has_no_network_list_yet(world: World, tmp_path: Path) -> None:
    (tmp_path / "launcher").write_bytes(b"program")
    (tmp_path / "10-isthmus.conflist").write_bytes(b"{}")
    (tmp_path / "net.d").mkdir()
    install = InstallConfig(
        network_list=tmp_path / "10-isthmus.conflist",
        launcher=tmp_path / "launcher",
        bin_dir=tmp_path / "bin",
        conf_dir=tmp_path / "net.d",
    )
    blocks = Blocks(
        world.leases,
        Snapshot(),
        boot_id="b",
        new_uid=lambda: "u",
        pod_of=lambda record: "",
        clock=lambda: 0.0,
    )
    wired = at_interval(world, AgentConfig(state_dir=tmp_path, install=install))
    wired.node = replace(world.node, blocks=blocks, ready=lambda: "")
    wired.blocks = blocks

    Daemon(wired)._tick()

    assert os.listdir(install.conf_dir) == []
    assert (install.bin_dir / "isthmus").exists()
