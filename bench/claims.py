"""A thousand nodes register and claim blocks of both families, all at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path

from cluster import Cluster, cluster
from crowd import crowd
from figures import Figure, Table
from hosts import BenchError

NODES = 1_000
# 4,096 blocks of each family: four times the claims.
WIDE = (("four", "10.64.0.0/14"), ("six", "fd64::/110"))
# 2,048 less 996 reserved: 1,052, of which 1,000 are 95 %.
_SPARE = (512, 256, 128, 64, 32, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    replicas: int
    full: bool = False
    watching: bool = True


CASES = (
    Case(name="1 ipamd", replicas=1),
    Case(name="1 ipamd, no streams", replicas=1, watching=False),
    Case(name="1 ipamd, pool to 95 %", replicas=1, full=True),
    Case(name="3 ipamd", replicas=3),
    Case(name="3 ipamd, pool to 95 %", replicas=3, full=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Seconds; *processor* is what all ipamd used.

    *transactions* are etcd's, for each claim, without one for each registration.
    """

    handshakes: float
    took: float
    transactions: float
    streamed: int
    processor: float


def measure(table: Table, work: Path, *, quick: bool) -> None:
    """Fill *table*; in each round all cases take turns, each with a new etcd."""
    rounds = 1 if quick else 3
    found: dict[str, list[Run]] = {case.name: [] for case in CASES}
    for number in range(rounds):
        for case in CASES:
            directory = work / f"claims-{number}-{CASES.index(case)}"
            found[case.name].append(_run(case, directory))
    for name, runs in found.items():
        _add(table, name, runs)


def _add(table: Table, name: str, runs: Sequence[Run]) -> None:
    what = f"{NODES:,} nodes register and claim"
    promise = "5 s" if name.startswith("1 ") else ""
    table.add(what, name, Figure(tuple(r.took for r in runs), "s"), promise=promise)
    table.add(
        "… transactions a claim",
        name,
        Figure(tuple(r.transactions for r in runs), ""),
        promise="1.2",
    )
    table.add("… processor, all ipamd", name, Figure(tuple(r.processor for r in runs), "s"))
    table.add("… messages streamed", name, Figure(tuple(float(r.streamed) for r in runs), ""))
    table.add(f"{NODES:,} handshakes before", name, Figure(tuple(r.handshakes for r in runs), "s"))


def _run(case: Case, directory: Path) -> Run:
    names = [f"node-{number}" for number in range(NODES)]
    with cluster(directory, replicas=case.replicas) as made:
        make_pools(made, full=case.full)
        with crowd(made, names) as nodes:
            handshakes, _ = nodes.time("connect")
            before, used = made.transactions(), made.processor()
            took, answers = nodes.time("begin", watching=case.watching)
            transactions, used = made.transactions() - before, made.processor() - used
            brought = nodes.ask("forget")
    check([block for answer in answers for block in answer["blocks"]], 2 * NODES)
    return Run(
        handshakes=handshakes,
        took=took,
        transactions=(transactions - NODES) / NODES,
        streamed=sum(one["messages"] for one in brought),
        processor=used,
    )


def make_pools(
    made: Cluster, *, full: bool = False, lengths: tuple[str, str] = ("26", "122")
) -> None:
    for (name, cidr), length in zip(WIDE, lengths, strict=True):
        whole = ip_network(cidr)
        if full:
            whole = ip_network((int(whole.network_address), whole.prefixlen + 1))
        reserve = [word for one in _reserved(str(whole)) for word in ("--reserve", one)]
        words = [name, str(whole), "--block-length", length, *(reserve if full else ())]
        made.admin("ipam", "pools", "create", *words)


def _reserved(cidr: str) -> list[str]:
    """Networks of as many blocks as are to spare, from the end of *cidr* on."""
    whole = ip_network(cidr)
    length = 26 if whole.version == 4 else 122
    found, end = [], int(whole.broadcast_address) + 1
    for blocks in _SPARE:
        size = blocks << (whole.max_prefixlen - length)
        end -= size
        bits = length - (blocks.bit_length() - 1)
        found.append(f"{whole.network_address.__class__(end)}/{bits}")
    return found


def check(blocks: Sequence[str], expected: int) -> None:
    """Raises BenchError where two overlap, or some are missing."""
    if len(blocks) != expected:
        raise BenchError(f"{len(blocks)} blocks were given, not {expected}")
    for version in (4, 6):
        mine = sorted(
            (net for net in map(ip_network, blocks) if net.version == version),
            key=lambda net: int(net.network_address),
        )
        for one, other in pairwise(mine):
            if one.overlaps(other):
                raise BenchError(f"{one} and {other} were both given")
