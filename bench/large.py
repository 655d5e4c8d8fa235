#!/usr/bin/env python3
"""How much memory an agent has in a cluster of 1,000 nodes and 50,000 pods.

    bench/large.py [DIRECTORY]

etcd, ipamd and the agent are real, in a network namespace of their own; the other nodes speak
ipamd's protocol (nodes.py), and the API server is simulated (api_server.py).  Twice: as the
manifest has it, and with `--services`, when all endpoints are translated too.
"""

import re
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import hosts  # noqa: E402
from agent_needs import processor, resident  # noqa: E402
from api_server import NODES, PODS_EACH, SERVICES  # noqa: E402
from claims import make_pools  # noqa: E402
from cluster import ISTHMUS, Cluster, Program, cluster, free_port  # noqa: E402
from crowd import crowd  # noqa: E402
from figures import Figure, Table  # noqa: E402
from report import report_on_host  # noqa: E402

from dataplane.fabric import Fabric  # noqa: E402
from routing.reconciler import clear  # noqa: E402

NODE = "measured"
_WITHIN_S = 180.0
_REST_S = 20.0
_PAGE, _SERVICES_PAGE = "127.0.0.1:9477", "127.0.0.1:10249"


def measure(table: Table, work: Path) -> None:
    with cluster(work / "large") as made:
        make_pools(made)
        port = free_port()
        program = Path(__file__).with_name("api_server.py")
        server = Program(
            ["env", f"PYTHONPATH={ROOT}", sys.executable, str(program), str(port), NODE],
            made.directory / "api-server.log",
        )
        server.start()
        try:
            with crowd(made, [f"node-{number}" for number in range(1, NODES)]) as others:
                others.ask("begin", watching=True)
                for who, services in (("as the manifest is", False), ("with Services", True)):
                    _one(table, made, who, port, services=services)
        finally:
            server.kill()


def _one(table: Table, made: Cluster, who: str, port: int, *, services: bool) -> None:
    agent = _agent(made, port, services=services)
    agent.start()
    try:
        _until(agent, _PAGE, "isthmus_routes", 2 * (NODES - 1))
        if services:
            _until(agent, _SERVICES_PAGE, "isthmus_services", SERVICES)
        time.sleep(_REST_S)  # what it has at rest, with the pages of lists given back
        now, most = resident(agent.pid), resident(agent.pid, most=True)
        used = processor(agent.pid)
    finally:
        agent.kill()
        with closing(Fabric()) as fabric:
            clear(fabric)
    what = f"{NODES:,} nodes, {NODES * PODS_EACH:,} pods"
    table.add(f"agent resident, {what}", who, Figure((now,), "MB"), promise="100 MB")
    table.add("… the most that it was", who, Figure((most,), "MB"))
    table.add("… processor until then", who, Figure((used,), "s"))


def _agent(made: Cluster, port: int, *, services: bool) -> Program:
    """One that is not started, with all that the manifest configures; always of the same store."""
    files = made.authority.node(NODE)
    state = made.directory / "agent"
    state.mkdir(exist_ok=True)
    (state / "token").write_text("nobody-looks")
    config = state / "agent.toml"
    config.write_text(
        f'socket = "{state}/agent.sock"\nstate_dir = "{state}"\nlog_level = "warning"\n'
        f'metrics_address = "{_PAGE}"\n'
        f'[ipamd]\nendpoints = ["{made.endpoints[0]}"]\nnode = "{NODE}"\n'
        f'addresses = ["192.0.2.2"]\nca = "{made.authority.file}"\n'
        f'certificate = "{files.certificate}"\nkey = "{files.key}"\n'
        f'[kubernetes]\naddress = "http://127.0.0.1:{port}"\nnode = "{NODE}"\n'
        f'token = "{state}/token"\n'
        '[routing]\nmode = "auto"\n[masquerade]\n' + "[services]\n" * services
    )
    return Program([*ISTHMUS, "agent", "--config", str(config)], state / "log")


def _until(agent: Program, page: str, metric: str, least: int) -> None:
    """Until what *metric* of *page* counts is as many."""
    until = time.monotonic() + _WITHIN_S
    found = 0.0
    while found < least:
        agent.require("the agent")
        if time.monotonic() > until:
            raise hosts.BenchError(f"{metric}: {found:.0f} of {least}")
        time.sleep(0.5)
        found = sum(map(float, re.findall(rf"^{metric}(?:{{.*}})? (.*)", _read(page), re.M)))


def _read(page: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{page}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
    except urllib.error.URLError:
        return ""  # it is starting
    return text


if __name__ == "__main__":
    sys.exit(report_on_host("large", measure))
