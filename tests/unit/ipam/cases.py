"""Values and stores that the tests of this package share."""

from collections.abc import Iterable
from ipaddress import ip_interface
from threading import Event

from ipam.errors import StoreUnavailable
from ipam.leases import Attachment, Record, State, Wanted
from ipam.ranges import Range, RangeSet
from ipam.store import Change, MemoryStore

BOOT = "5f4e8bd6-0000-4000-8000-000000000001"
SECOND = 1_000_000_000
WAIT_S = 10.0


def who(number: int, network: str = "web") -> Attachment:
    return Attachment(network, f"container-{number}", "eth0")


def record(owner: Attachment, *addresses: str, state: State = State.HELD) -> Record:
    return Record(
        who=owner,
        boot_id=BOOT,
        started_ns=5,
        sandbox="/run/netns/blue",
        netns_cookie=4711,
        state=state,
        addresses=tuple(map(ip_interface, addresses)),
        spec='{"mtu":1500}',
    )


def range_set(subnet: str, start: str | None = None, end: str | None = None) -> RangeSet:
    return RangeSet((Range.of(subnet, start, end),))


def wanted(*subnets: str) -> Wanted:
    return Wanted(range_sets=tuple(map(range_set, subnets)))


class Clock:
    """CLOCK_BOOTTIME that stands still until told."""

    def __init__(self) -> None:
        self.ns = 1000 * SECOND

    def __call__(self) -> int:
        return self.ns

    def advance(self, seconds: float) -> None:
        self.ns += int(seconds * SECOND)


class FragileStore(MemoryStore):
    """Fails commits, before or after they take effect, or lets them wait, on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.closed = False
        self.go = Event()
        self.go.set()
        self.started = Event()
        self.attempts = 0
        self.batches: list[int] = []

    def commit(self, changes: Iterable[Change]) -> None:
        changes = list(changes)
        self.attempts += 1
        self.started.set()
        assert self.go.wait(WAIT_S)
        if self.full:
            raise StoreUnavailable("disk full")
        super().commit(changes)
        self.batches.append(len(changes))

    def close(self) -> None:
        self.closed = True
