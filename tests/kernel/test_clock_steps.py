"""The wall clock steps under agent and ipamd: nothing ends sooner for it, nor later.

A library preloaded into both moves their wall clock, and no other: the machine's is left alone.
Certificates alone go by it, and are good at every step made here.
"""

import asyncio
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.agents import Machine, addresses, until
from tests.kernel.conftest import Namespace
from tests.kernel.memory_ipamd import Ipamd
from tests.kernel.service_running import FAR, P1, WEB_IP, Worker, a_service, put
from tests.kernel.service_site import Site, site
from tests.kernel.test_cluster_agent import FOUR, ROUTED, SIX, blocks, cluster, has_blocks
from tests.service_objects import slice_

pytestmark = pytest.mark.kernel

HOUR = 3600
STEPS = (20 * HOUR, -48 * HOUR, 0)


@pytest.fixture(scope="module")
def binary(patient: str) -> str:
    return patient


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the wall clock of what is started from now on so many seconds off, at any time."""
    library, clock = tmp_path / "shifted_clock.so", tmp_path / "clock"
    source = Path(__file__).with_name("shifted_clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)

    def set_to(seconds: int) -> None:
        with clock.open("r+b" if clock.exists() else "wb") as file:
            file.write(struct.pack("l", seconds))

    set_to(0)
    monkeypatch.setenv("SHIFTED_CLOCK", str(clock))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return set_to


@contextmanager
def ipamd_of(machine: Machine, directory: Path) -> Iterator[Ipamd]:
    ipamd = Ipamd(machine, directory)
    try:
        ipamd.do("pool", "four", FOUR, 29)
        ipamd.do("pool", "six", SIX, 122)
        ipamd.do("settings", {"silence_s": HOUR, "quarantine_s": HOUR})
        machine.settings = {"ipamd": ipamd.settings()}
        yield ipamd
    finally:
        ipamd.kill()


def test_the_clock_that_is_stepped_is_that_of_both(
    machine: Machine, step: Callable[[int], None]
) -> None:
    step(20 * HOUR)
    told = subprocess.run(["date", "+%s"], capture_output=True, check=True, text=True).stdout
    step(0)
    back = subprocess.run(["date", "+%s"], capture_output=True, check=True, text=True).stdout

    assert 19 * HOUR < int(told) - int(back) <= 20 * HOUR


def test_blocks_and_pods_do_not_go_by_the_wall_clock(
    machine: Machine, tmp_path: Path, step: Callable[[int], None]
) -> None:
    with ipamd_of(machine, tmp_path / "ipamd") as ipamd:
        machine.start()
        has_blocks(machine)
        own = blocks(machine)
        ipamd.do("take", "gone", 1)
        ipamd.do("fence", "gone")
        until(lambda: states(ipamd, "gone") == {"quarantined"}, "they rest")
        ipamd.do("tick")  # from now on it knows since when
        given, released = [], machine.pod()
        cooling = addresses(machine.add(released, network=ROUTED))
        assert machine.delete(released, network=ROUTED).status == 0
        for seconds in STEPS:
            step(seconds)
            ipamd.do("tick")
            given.append(addresses(machine.add(machine.pod(), network=ROUTED)))
            until(lambda: cluster(machine)["mirror_waiting"] == 0, "all is mirrored")

            assert cluster(machine)["connected"]
            assert blocks(machine) == own
            assert states(ipamd, "gone") == {"quarantined"}
            assert states(ipamd, "n1") == {"active"}
        assert cooling not in given
        assert len({address for pod in given for address in pod}) == 2 * len(STEPS)
        assert machine.problems() == []
        machine.kill()
        until(lambda: not ipamd.do("show", "nodes")[0]["alive"], "it is silent")
        ipamd.do("tick")
        step(20 * HOUR)
        ipamd.do("tick")
        assert states(ipamd, "n1") == {"active"}
        ipamd.do("settings", {"quarantine_s": 0})
        until(lambda: states(ipamd, "gone") == set(), "they are freed")


def states(ipamd: Ipamd, node: str) -> set[str]:
    return {row["state"] for row in ipamd.do("show", "blocks") if row["node"] == node}


def test_services_do_not_go_by_the_wall_clock(
    namespaces: Callable[[str], Namespace], step: Callable[[int], None]
) -> None:
    async def change(here: Site) -> None:
        async with a_service() as api:
            worker = Worker(here, api.port)
            try:
                for seconds, (pod, answer) in zip(
                    STEPS, ((FAR, "far"), (P1, "p1")) * 2, strict=False
                ):
                    step(seconds)
                    put(api, slice_("web", pod))
                    client = here.pods["p2"]
                    while set(here.answers(client, WEB_IP, 80, 6)) != {answer}:
                        await worker.steps(1)
            finally:
                worker.kill()

    with site(namespaces) as here:
        here.node.run("ip", "link", "set", "lo", "up")
        asyncio.run(change(here))
