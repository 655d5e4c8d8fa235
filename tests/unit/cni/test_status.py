"""STATUS: silence, or 50 with the reason."""

import pytest

from tests.unit.cni.fakes import World


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
