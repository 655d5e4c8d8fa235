"""After the loss of power at any moment, what was acknowledged is on the disk.

A run of agent and launchers is recorded; the state directory is rebuilt as it could stand after
each beginning of it (tests/kernel/disk.py), and opened by the code that opens it after a boot.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kernel.agents import Machine
from tests.kernel.disk import Kind, Op
from tests.kernel.power import Judge, Recording, find, lose_power

pytestmark = pytest.mark.kernel

SHORT, LONG = 250, 20_000  # moments at which power is lost


def run(machine: Machine, directory: Path, *, rounds: int) -> Recording:
    """All that changes the state directory; *rounds* make its log wrap."""
    recording = Recording(machine, directory)
    pods = [machine.pod(f"c{number}") for number in range(8)]
    recording.start()
    for pod in pods[:4]:
        recording.call("ADD", pod)
    for pod in pods[:2]:
        recording.call("DEL", pod)
    recording.call("ADD", pods[0])
    with ThreadPoolExecutor(4) as runtimes:
        for verb in ("ADD", "DEL", "ADD"):
            list(runtimes.map(recording.call, [verb] * 4, pods[4:]))
    for _ in range(rounds):
        recording.call("DEL", pods[0])
        recording.call("ADD", pods[0])
    recording.stop()
    for pod in pods[2:4]:
        recording.keep_deletion(pod)
    recording.start()
    recording.call("ADD", pods[2])
    recording.stop(kill=True)
    recording.keep_deletion(pods[4])
    recording.start()
    recording.call("ADD", pods[1])
    recording.stop()
    return recording


def judge_of(recording: Recording) -> Judge:
    def judge(directory: Path, moment: float) -> Iterator[str]:
        yield from find(directory).wrong(recording.calls, moment)
        if (settings := directory / "sysctl.json").exists():
            json.loads(settings.read_text() or "null")
        for path in directory.rglob("*.bad"):
            yield f"{path.name} is damaged"

    return judge


def lost(recording: Recording, ops: Sequence[Op], moments: int) -> list[str]:
    return lose_power(recording.machine.state, ops, judge_of(recording), moments)


def test_what_was_acknowledged_survives_the_loss_of_power(machine: Machine, tmp_path: Path) -> None:
    recording = run(machine, tmp_path, rounds=2)
    ops = recording.ops()
    wrong = lost(recording, ops, SHORT)

    assert len(ops) > 200
    assert wrong[:5] == []


@pytest.mark.slow
def test_it_does_so_at_every_moment_of_a_long_run(machine: Machine, tmp_path: Path) -> None:
    recording = run(machine, tmp_path, rounds=150)

    assert lost(recording, recording.ops(), LONG)[:5] == []


@pytest.mark.parametrize("kind", ["isthmus.db-wal", ".del", "spool", "node"])
def test_a_sync_left_out_is_found_wanting(machine: Machine, tmp_path: Path, kind: str) -> None:
    """This test can fail: each kind of file, and each directory, has to be synced."""
    recording = run(machine, tmp_path, rounds=0)
    ops = recording.ops()
    careless = [
        op
        for op in ops
        if op.kind is not Kind.SYNC or not (op.path.endswith(kind) or is_draft(op.path, kind))
    ]

    assert len(careless) < len(ops)
    assert lost(recording, careless, SHORT)


def is_draft(path: str, kind: str) -> bool:
    """Whether *path* is a waiting deletion before it has its name."""
    return kind == ".del" and "/.tmp-" in path
