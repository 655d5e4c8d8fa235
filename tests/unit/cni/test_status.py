"""STATUS: silence, or 50 with the reason."""

from dataclasses import replace

import pytest

from ipam.errors import NotServed
from tests.unit.cni.fakes import Document, World


@pytest.mark.parametrize("program", ["isthmus", "isthmus-ipam"])
def test_a_ready_node_says_nothing(world: World, program: str) -> None:
    found = world.call("STATUS", program=program)

    assert (found.status, found.document) == (0, None)


@pytest.mark.parametrize("program", ["isthmus", "isthmus-ipam"])
def test_a_node_that_cannot_serve_says_why(world: World, program: str) -> None:
    world.ready = "addresses cannot be made durable: disk full"

    found = world.call("STATUS", program=program)

    assert (found.status, found.code) == (1, 50)
    assert found.msg == "addresses cannot be made durable: disk full"
    assert found.document is not None
    assert found.document["cniVersion"] == "1.1.0"


def test_a_foreign_ipam_that_cannot_be_looked_for_is_not_asked(world: World) -> None:
    found = world.call("STATUS", world.conf(ipam={"type": "static"}), path="")

    assert found.status == 0


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_versions_before_status_have_none(world: World, version: str) -> None:
    found = world.call("STATUS", world.conf(cniVersion=version))

    assert (found.code, found.msg) == (1, "config version does not allow STATUS")


class Blocks:
    """Those of a node that has none to give from, for *why*."""

    def __init__(self, why: str = "", cut_off: int = 0) -> None:
        self.why = why
        self.lost = ["a pod"] * cut_off

    def wanted(self, pools: tuple[str, ...], **_: object) -> None:
        if self.why:
            raise NotServed(f"{self.why} {pools}")

    def cut_off(self) -> list[str]:
        return self.lost


@pytest.mark.parametrize("program", ["isthmus", "isthmus-ipam"])
@pytest.mark.parametrize(
    ("blocks", "ipam", "code"),
    [
        (Blocks("no block yet"), {"type": "isthmus"}, 50),
        (Blocks("no block of pool", cut_off=1), {"type": "isthmus", "pool": "blue"}, 51),
        (Blocks(cut_off=1), {"type": "isthmus"}, 0),
        (Blocks("no block yet"), {"type": "isthmus", "subnet": "10.9.0.0/24"}, 0),
    ],
)
def test_a_network_of_blocks_is_not_available_before_there_is_one(
    world: World, program: str, blocks: Blocks, ipam: Document, code: int
) -> None:
    world.node = replace(world.node, blocks=blocks)  # type: ignore[arg-type]

    found = world.call("STATUS", world.conf(ipam=ipam), program=program)

    assert found.code == code
    assert found.msg == (f"{blocks.why} {('blue',) if 'pool' in ipam else ()}" if code else "")
