"""Hosts and runtimes for one test each."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtimes.agent import Agent, start_agent
from tests.runtimes.cnitool import Cnitool
from tests.runtimes.host import Host, running_host
from tests.runtimes.podman import Podman, start_podman


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with running_host(tmp_path) as host:
        host.install_peers()
        yield host
    # pytest shows this of a test that failed.
    for log in sorted(tmp_path.glob("*.log")):
        sys.stdout.write(f"---- {log.name}\n{log.read_text(errors='replace')[-6000:]}\n")


@pytest.fixture
def write_network(host: Host) -> Callable[[dict[str, Any]], None]:
    """Write a conflist as 10-<name>.conflist."""

    def write(conflist: dict[str, Any]) -> None:
        path = host.networks / f"10-{conflist['name']}.conflist"
        path.write_text(json.dumps(conflist))

    return write


@pytest.fixture
def agent(host: Host) -> Agent:
    return start_agent(host)


@pytest.fixture
def podman(host: Host) -> Podman:
    return start_podman(host)


@pytest.fixture
def cnitool(host: Host) -> Cnitool:
    return Cnitool(host)
