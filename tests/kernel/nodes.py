"""A node without its socket: wired in this process, in the namespace of a machine.

What runs here is all of the agent but the daemon around it, so that a step of it can be made to
fail; and each life of it can be a child process, to be killed at that step.
"""

import json
import os
import pickle
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from agent.wiring import Wired, wire
from cni.dispatch import serve
from cni.request import Request, Response
from ipam.leases import Record, State
from tests.kernel.agents import Machine, Pod, bare
from tests.kernel.sockets import inside

_RANGES = [
    [{"subnet": "10.9.0.0/24", "rangeStart": "10.9.0.7", "rangeEnd": "10.9.0.8"}],
    [{"subnet": "fd09::/64", "rangeStart": "fd09::7", "rangeEnd": "fd09::8"}],
]
_EVERYTHING: Mapping[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "shop",
    "type": "isthmus",
    "ipMasq": True,
    "ipam": {"type": "isthmus", "ranges": _RANGES},
    "runtimeConfig": {
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
        ],
        "bandwidth": {
            "ingressRate": 8_000_000,
            "ingressBurst": 800_000,
            "egressRate": 8_000_000,
            "egressBurst": 800_000,
        },
    },
}
# All that an attachment can have, in both modes, where there are two addresses of each family.
BRIDGED = {**_EVERYTHING, "hairpinMode": True, "macspoofchk": True, "bridge": "cni0"}
ROUTED = {**_EVERYTHING, "mode": "routed"}


@dataclass(frozen=True, slots=True)
class Site:
    """A node at work, and whom it serves."""

    machine: Machine
    wired: Wired

    def call(self, verb: str, pod: Pod, network: Mapping[str, Any] | None = None) -> Response:
        return serve(request(self, verb, pod, network), self.wired.node)

    def add(self, pod: Pod) -> tuple[str, ...]:
        """The addresses that an ADD, which has to succeed, gave, without prefix lengths."""
        response = self.call("ADD", pod)
        assert response.status == 0, response
        return tuple(bare(one["address"]) for one in json.loads(response.stdout)["ips"])

    def settle(self) -> None:
        """What the agent does each second, and a round."""
        self.wired.leases.expire()
        self.wired.mend_store()
        self.wired.reconciler.replay()
        self.wired.reconciler.round()

    def records(self, state: State | None = None) -> list[Record]:
        return [one for one in self.wired.leases.records() if state in (None, one.state)]

    def problems(self) -> list[str]:
        return self.wired.reconciler.check()

    def held(self) -> int:
        """How many addresses are not free."""
        return sum(usage.held for usage in self.wired.leases.usage())


@contextmanager
def site_of(machine: Machine, *, start: bool = True) -> Iterator[Site]:
    """Wire a node, with this thread in the machine's namespace; *start* it as an agent would."""
    with inside(machine.host):
        wired = wire(machine.config)
        try:
            if start:
                wired.mend_store()
                wired.reconciler.start()
            yield Site(machine, wired)
        finally:
            wired.close()


def request(site: Site, verb: str, pod: Pod, network: Mapping[str, Any] | None = None) -> Request:
    """A request as the launcher, started now, would send it."""
    node = site.wired.node
    return Request(
        program="isthmus",
        environment=site.machine.environment(verb, pod),
        stdin=site.machine.stdin(network, None),
        started_ns=node.now(),
        boot_id=node.boot_id,
    )


class Answered(Protocol):
    """How a call ended: what a launcher printed, or would."""

    @property
    def status(self) -> int: ...
    @property
    def stdout(self) -> bytes: ...


def error_of(answer: Answered) -> dict[str, Any]:
    """The one JSON error of a failure, which is no bug."""
    assert answer.status == 1, answer
    document = json.loads(answer.stdout)
    assert {"cniVersion", "code", "msg"} <= set(document), document
    assert document["code"] != 999, document
    return dict(document)


def in_child(work: Callable[[], Any]) -> Any:
    """What *work* returns in a process of its own, or the number of the signal that killed it.

    AssertionError where it raised, with the words of it.
    """
    return begun(work)()


def in_children(works: Iterable[Callable[[], Any]], *, at_once: int = 4) -> list[Any]:
    """The same of each, several at once: they mostly wait for the kernel."""
    found: list[Any] = []
    running: deque[Callable[[], Any]] = deque()
    for work in works:
        if len(running) == at_once:
            found.append(running.popleft()())
        running.append(begun(work))
    return found + [collect() for collect in running]


def begun(work: Callable[[], Any]) -> Callable[[], Any]:
    """Start *work* in a process of its own; returns how to wait for it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        # Sockets of a thread go with the process here, as in the agent.
        warnings.simplefilter("ignore", ResourceWarning)
        os.close(reader)
        status = 1
        try:
            with open(writer, "wb") as answers:
                pickle.dump(_outcome(work), answers)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    return lambda: _collected(child, reader)


def _collected(child: int, reader: int) -> Any:
    with open(reader, "rb") as answers:
        data = answers.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    failure, result = pickle.loads(data)
    if failure:
        raise AssertionError(failure)
    return result


def _outcome(work: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "", work()
    except BaseException:  # noqa: BLE001 - whatever it was, the test is told
        return traceback.format_exc(), None
