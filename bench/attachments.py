"""ADD and DEL, one at a time and 32 at a time, beside the reference bridge with host-local."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import hosts
from figures import Figure, Table, quantile
from hosts import Plugin, Runs

DEBIAN = Path("/usr/lib/cni")
NEWEST = hosts.ROOT / "build/peers/bin"
STANDALONE = hosts.ROOT / "dist/isthmus/isthmus"
_OUR_TURNS = 3  # ours is short, so it can be measured more often in the same time


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity of a run, taken per round, and what was promised of it."""

    name: str
    of: Callable[[Runs], float]
    promise: str = ""


def p50(verb: str) -> Callable[[Runs], float]:
    return lambda runs: quantile(runs.each[verb], 0.5)


def p99(verb: str) -> Callable[[Runs], float]:
    return lambda runs: quantile(runs.each[verb], 0.99)


def wall(verb: str) -> Callable[[Runs], float]:
    return lambda runs: runs.wall[verb]


SINGLE = (
    Measure("ADD p50", p50("ADD"), "1/3, aim 1/4"),
    Measure("ADD p99", p99("ADD")),
    Measure("DEL p50", p50("DEL"), "no slower"),
)
PARALLEL = (
    Measure("64 ADDs, 32 at a time", wall("ADD"), "1/3, aim 1/4"),
    Measure("64 DELs, 32 at a time", wall("DEL"), "1/3"),
)
MASQUERADED = (
    Measure("ADD p50, ipMasq", p50("ADD"), "1/8"),
    Measure("DEL p50, ipMasq", p50("DEL")),
)
MASQUERADED_PARALLEL = (Measure("64 ADDs, 32 at a time, ipMasq", wall("ADD"), "1/8"),)
DUAL = (Measure("ADD p50, IPv4 and IPv6", p50("ADD")),)


def measure(table: Table, work: Path, *, quick: bool) -> None:
    """Fill *table*; the figures are of several rounds in which all take turns."""
    rounds = 3 if quick else 5
    with ExitStack() as undo:
        plain, masqueraded, dual = _plugins(undo, work)
        compare(table, SINGLE, plain, rounds, count=20 if quick else 64)
        compare(table, PARALLEL, plain, rounds, count=64, parallel=32)
        compare(table, MASQUERADED, masqueraded, rounds, count=10 if quick else 32)
        compare(table, MASQUERADED_PARALLEL, masqueraded, rounds, count=64, parallel=32)
        compare(table, DUAL, dual, min(rounds, 5), count=10)
        _status(undo, table, work, rounds, count=200 if quick else 1000)
        _standalone(undo, table, work, rounds)


def compare(
    table: Table,
    measures: Sequence[Measure],
    plugins: Sequence[Plugin],
    rounds: int,
    *,
    count: int,
    parallel: int = 1,
) -> None:
    """Run *plugins* in turns and add a row for each of *measures* and plugin; ours is first."""
    found: dict[str, list[Runs]] = {plugin.name: [] for plugin in plugins}
    for plugin in plugins:
        plugin.run("ADD", "DEL", count=2)  # makes bridge, tables and files
    for _ in range(rounds):
        for plugin in plugins:
            turns = _OUR_TURNS if plugin is plugins[0] else 1
            for _ in range(turns):
                runs = plugin.run("ADD", "DEL", count=count, parallel=parallel)
                found[plugin.name].append(runs)
    for each in measures:
        figures = {name: Figure(tuple(map(each.of, runs))) for name, runs in found.items()}
        ours = figures[plugins[0].name]
        table.add(each.name, plugins[0].name, ours)
        for plugin in plugins[1:]:
            figure = figures[plugin.name]
            table.add(each.name, plugin.name, figure, ours=ours, promise=each.promise)


def _plugins(undo: ExitStack, work: Path) -> tuple[list[Plugin], ...]:
    agent = undo.enter_context(
        hosts.agent(undo.enter_context(hosts.host("isthmus")), work / "isthmus")
    )
    debian, newest, nft = (
        undo.enter_context(hosts.host(name)) for name in ("debian", "newest", "nft")
    )

    def old(**options: object) -> Plugin:
        name = "bridge, Debian 1.1.1" + (", iptables" if options.get("ipMasq") else "")
        return hosts.reference(DEBIAN, debian, work / "debian", name, **options)

    def new(host: str, backend: str = "", **options: object) -> Plugin:
        name = "bridge 1.9.1" + (f", {backend}" if backend else "")
        if backend:
            options["ipMasqBackend"] = backend
        return hosts.reference(NEWEST, host, work / f"newest{backend}", name, **options)

    return (
        [hosts.isthmus(agent), old(), new(newest)],
        [
            hosts.isthmus(agent, ipMasq=True),
            old(ipMasq=True),
            new(newest, "iptables", ipMasq=True),
            new(nft, "nftables", ipMasq=True),
        ],
        [hosts.isthmus(agent, families=2), new(newest, families=2)],
    )


def _status(undo: ExitStack, table: Table, work: Path, rounds: int, *, count: int) -> None:
    """STATUS against VERSION, which is the start of the launcher and nothing else."""
    host = undo.enter_context(hosts.host("status"))
    agent = undo.enter_context(hosts.agent(host, work / "status"))
    ours = hosts.isthmus(agent, cniVersion="1.1.0")
    beyond, start, last = [], [], []
    for _ in range(rounds):
        runs = ours.run("VERSION", "STATUS", count=count)
        start.append(quantile(runs.each["VERSION"], 0.5))
        last.append(quantile(runs.each["VERSION"], 0.99))
        beyond.append(quantile(runs.each["STATUS"], 0.99) - last[-1])
    table.add("process start, VERSION p50", ours.name, Figure(tuple(start)))
    table.add("process start, VERSION p99", ours.name, Figure(tuple(last)))
    table.add("STATUS p99 beyond start's p99", ours.name, Figure(tuple(beyond)), promise="2 ms")
    strict = Figure(tuple(b + high - low for b, high, low in zip(beyond, last, start, strict=True)))
    table.add("STATUS p99 beyond start's p50", ours.name, strict, promise="2 ms")


def _standalone(undo: ExitStack, table: Table, work: Path, rounds: int) -> None:
    if not STANDALONE.exists():
        table.add("ADD p50, standalone", "not built: make dist", Figure((float("nan"),)))
        return
    host = undo.enter_context(hosts.host("standalone"))
    plugin = hosts.standalone(STANDALONE, host, work / "standalone")
    plugin.run("ADD", "DEL", count=2)
    found = [plugin.run("ADD", "DEL", count=8) for _ in range(min(rounds, 5))]
    for verb in ("ADD", "DEL"):
        figure = Figure(tuple(map(p50(verb), found)))
        table.add(f"{verb} p50, standalone", plugin.name, figure)
