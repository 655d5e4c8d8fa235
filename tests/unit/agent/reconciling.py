"""A reconciler over a kernel of values, and what befalls it."""

from agent.reconciler import Reconciler
from agent.rounds import Report
from cni.attachment import host_name
from tests.unit.cni.fakes import WHO, Document, World

HOST = host_name(WHO)
GRACE_S = 60.0
FULL: Document = {
    "ipMasq": True,
    "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80}],
        "bandwidth": {"ingressRate": 8000000, "ingressBurst": 800000},
    },
}


def later(world: World, reconciler: Reconciler, seconds: float = GRACE_S) -> Report:
    world.clock.advance(seconds)
    return reconciler.round()


def gone(world: World) -> None:
    """The sandbox went, and took its pair along."""
    world.kernel.detach(HOST)
