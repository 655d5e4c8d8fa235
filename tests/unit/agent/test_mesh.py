"""Routes and translation follow the table, the pools, the settings and the kernel's news."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from random import Random
from typing import Any

import pytest

from agent.mesh import Mesh, Seams
from dataplane.netlink import text
from ipam.calls import PoolRow, TableRow
from ipam.holdings import Holdings
from masquerade.reconciler import Reconciler as Masquerader
from masquerade.settings import Settings
from net.address import IPNetwork
from routing.reconciler import Reconciler as Router
from routing.settings import Settings as Routing
from tests.unit.masquerade.test_reconciler import FakeTable
from tests.unit.routing.samples import B, own
from tests.unit.routing.test_reconciler import FOUR, FakeKernel

POOL = PoolRow(name="four", cidr=ip_network("10.80.0.0/16"), masquerade=True)
DELTABLE = 0xA02


@dataclass
class FakeBlocks:
    table: dict[IPNetwork, TableRow] = field(default_factory=dict)
    pools: tuple[PoolRow, ...] = ()
    holdings: Holdings = field(
        default_factory=lambda: Holdings(uid="u", blocks=(own("10.80.1.0/26"),))
    )
    told: list[Callable[[], None]] = field(default_factory=list)

    def follow(self, told: Callable[[], None]) -> None:
        self.told.append(told)

    def stream(self, *rows: TableRow) -> None:
        self.table = {row.cidr: row for row in rows}
        self.pools = (POOL,)
        for told in self.told:
            told()


@dataclass
class World:
    routes: bool = True
    blocks: FakeBlocks = field(default_factory=FakeBlocks)
    kernel: FakeKernel = field(default_factory=FakeKernel)
    table: FakeTable = field(default_factory=FakeTable)
    settings: Settings | None = field(default_factory=Settings)
    now: float = 0.0
    in_sync: bool = True
    doubt: str = ""
    complaint: str = ""
    mtus: list[int] = field(default_factory=list)
    readdressed: list[str] = field(default_factory=list)
    addresses: tuple[Any, ...] = (FOUR,)
    mesh: Mesh = field(init=False)

    def __post_init__(self) -> None:
        seams = Seams(
            in_sync=lambda: self.in_sync,
            doubt=lambda: self.doubt,
            settings=lambda: self.settings,
            complaint=lambda: self.complaint,
            limit_mtu=self.mtus.append,
            readdressed=lambda: self.readdressed.append("yes"),
            clock=lambda: self.now,
            random=Random(1),
        )
        router = Router(
            Routing(),
            self.kernel,
            node="a",
            own=lambda: self.addresses,
            clock=lambda: self.now,
        )
        self.mesh = Mesh(
            self.blocks, router if self.routes else None, Masquerader(self.table), seams
        )


def test_a_round_makes_routes_and_translation_and_says_how_much_a_way_carries() -> None:
    world = World()
    world.blocks.stream(*B)
    again = world.mesh.round()
    found = world.mesh.describe()

    assert not again
    assert world.mtus == [1450]
    assert (found["routing"]["direct"], found["routing"]["mode"]) == (2, "auto")
    assert found["masquerade"]["pools"] == ["four"]
    assert found["masquerade"]["elements"] == len(world.table.held or ())
    assert world.mesh.problems() == []


def test_without_routing_only_translation_is_looked_after() -> None:
    world = World(routes=False)
    world.blocks.stream(*B)
    world.mesh.round()

    assert world.kernel.looks == 0
    assert world.table.held
    assert world.mesh.describe()["routing"] is None
    assert not world.mesh.is_news(24, memoryview(b""))


def test_one_that_fails_does_not_keep_the_other_and_is_tried_again() -> None:
    world = World()
    world.kernel.broken = "observe"
    world.complaint = "the configuration changed and is not used"
    world.blocks.stream(*B)
    again = world.mesh.round()

    assert again
    assert world.table.held
    assert world.mesh.problems() == ["observe failed", world.complaint]
    world.kernel.broken, world.complaint = "", ""
    assert not world.mesh.round()
    assert world.mesh.problems() == []


def test_what_is_refused_is_tried_again_and_a_bug_too() -> None:
    world = World()
    world.kernel.refuse = ["route to x: another program has one"]
    world.blocks.stream(*B)
    refused = world.mesh.round(), world.mesh.problems()
    world.kernel.refuse = []
    world.blocks.pools = (None,)  # type: ignore[assignment]

    assert refused == (True, ["route to x: another program has one"])
    assert world.mesh.round()
    assert "internal error" in world.mesh.problems()[0]


def test_the_kernel_is_looked_at_again_in_time_and_when_it_is_said_to_have_changed() -> None:
    world = World()
    world.blocks.stream(*B)
    looks = []
    for world.now in (0, 59, 60, 61):
        world.mesh.round()
        looks.append(world.kernel.looks)
    world.mesh.drifted()
    world.mesh.round()
    looks.append(world.kernel.looks)

    assert looks == [1, 1, 2, 2, 3]


def test_a_part_of_the_translation_that_somebody_deletes_is_news() -> None:
    mesh = World(routes=False).mesh

    for name, is_news in (("isthmus-masquerade", True), ("filter", False)):
        payload = bytes([1, 0, 0, 0]) + text(1, name)
        assert mesh.is_news(DELTABLE, memoryview(payload)) is is_news


def test_while_the_table_is_in_doubt_nothing_is_taken_away() -> None:
    world = World()
    world.blocks.stream(*B)
    world.mesh.round()
    world.doubt = "the store went back"
    world.blocks.stream()
    for world.now in (0, 40, 80):
        world.mesh.round()

    assert len(world.kernel.programmed.routes) == 3


def test_it_follows_until_it_is_cancelled_and_tells_of_other_addresses() -> None:
    world = World()

    async def play() -> None:
        running = asyncio.ensure_future(world.mesh.run())
        await until(lambda: world.kernel.looks > 0)
        world.blocks.stream(*B)
        await until(lambda: len(world.kernel.programmed.routes) == 3)
        world.addresses = (B[0].addresses[0],)
        world.mesh.drifted()
        await until(lambda: bool(world.readdressed))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(play())
    world.mesh.wake()  # nobody is there any more


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not claim():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
