"""What the agent needs: memory, processor, and time to be back after a crash."""

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import hosts
from figures import Figure, Table
from hosts import PODS, Agent, Plugin

_ATTACHED = 250
_CROWD = 500
_MB = 1e6
_REST_S = 100


def measure(table: Table, work: Path, *, quick: bool) -> None:
    with hosts.host("needs") as host, hosts.agent(host, work / "needs") as agent:
        ours = hosts.isthmus(agent, ipMasq=True)
        idle = _settled(agent)
        table.add("agent resident, idle", ours.name, Figure((idle,), "MB"), promise="60 MB")
        _churn(table, agent, ours, idle, pairs=1_000 if quick else 10_000)
        _crowd(table, agent, ours)
        ours.run("ADD", count=_ATTACHED, parallel=32)
        seconds = 5 if quick else 30
        load = _load(agent, seconds)
        table.add(
            f"processor, {_ATTACHED} attachments idle, {seconds} s",
            ours.name,
            Figure((load * 100,), "%"),
            promise="about 0",
        )
        _restart(table, agent, ours, times=3 if quick else 5)


def _churn(table: Table, agent: Agent, ours: Plugin, idle: float, *, pairs: int) -> None:
    """Memory after many pairs, beside that after the first few hundred made everything once."""
    _pairs(ours, PODS * 8)
    before = _settled(agent)
    _pairs(ours, pairs)
    after = _settled(agent)
    figure = Figure((after,), "MB")
    table.add(
        f"agent resident after {pairs:,} pairs",
        ours.name,
        figure,
        promise=f"idle + 5 %; it is {(after / idle - 1) * 100:+.0f} %, "
        f"{(after / before - 1) * 100:+.0f} % since the first {PODS * 8}",
    )
    # Released addresses are remembered while they cool (30 s); what they took goes back in the
    # round after that (60 s).
    threading.Event().wait(_REST_S)
    rested = _settled(agent)
    table.add(
        f"agent resident, {_REST_S} s after those",
        ours.name,
        Figure((rested,), "MB"),
        promise=f"idle + 5 %; it is {(rested / idle - 1) * 100:+.0f} %",
    )


def _pairs(ours: Plugin, pairs: int) -> None:
    for done in range(0, pairs, PODS):
        ours.run("ADD", "DEL", count=min(PODS, pairs - done), parallel=32)


def _crowd(table: Table, agent: Agent, ours: Plugin) -> None:
    """The most memory while 500 ADDs, then 500 DELs are asked for at once."""
    most = [0.0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            most[0] = max(most[0], resident(agent.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        runs = ours.run("ADD", "DEL", count=_CROWD, parallel=_CROWD)
    finally:
        ended.set()
        watcher.join()
    for verb in ("ADD", "DEL"):
        table.add(f"{_CROWD} {verb}s at once", ours.name, Figure((runs.wall[verb],)))
    table.add(
        f"agent resident, most under {_CROWD} at once",
        ours.name,
        Figure((most[0],), "MB"),
        promise="150 MB",
    )


def _load(agent: Agent, seconds: int) -> float:
    """Processor seconds a second."""
    before = processor(agent.pid)
    time.sleep(seconds)  # nothing happens, and that is measured
    return (processor(agent.pid) - before) / seconds


def _restart(table: Table, agent: Agent, ours: Plugin, *, times: int) -> None:
    """From the start of an agent that was killed to the end of the first ADD it serves."""
    found = []
    for turn in range(times):
        one = replace(ours, env={**ours.env, "IFNAME_PREFIX": f"again{turn}-"})
        agent.kill()
        (agent.directory / "agent.sock").unlink()
        began = time.monotonic()
        agent.start()
        agent.wait()
        one.run("ADD", count=1)
        found.append((time.monotonic() - began) * 1000)
    table.add(
        f"restart to first ADD, {_ATTACHED} attachments",
        ours.name,
        Figure(tuple(found)),
        promise="1 s",
    )


def _settled(agent: Agent) -> float:
    time.sleep(2)  # two of its ticks
    return resident(agent.pid)


def resident(pid: int, *, most: bool = False) -> float:
    """VmRSS in megabytes, or the most that it ever was."""
    which = "VmHWM:" if most else "VmRSS:"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * 1024 / _MB
    return 0.0


def processor(pid: int) -> float:
    """Seconds of it that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
