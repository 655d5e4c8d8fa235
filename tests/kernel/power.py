"""What acknowledged what, while all that the programs do to their files is recorded; and how the
files may stand once power is lost (tests/kernel/disk.py).
"""

import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cni.delete import key_of
from cni.spool import Spool
from ipam.leases import State
from ipam.sqlite import open_store
from tests.kernel.agents import Machine, Pod, addresses, until
from tests.kernel.disk import Disk, Op, is_over, read, strace, tracer_of

# Says what is wrong with a directory as it is found after the loss of power at that moment.
Judge = Callable[[Path, float], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a runtime, from its start to its end; *given* are the addresses of an ADD."""

    verb: str
    container_id: str
    began: float
    ended: float
    given: tuple[str, ...] = ()


@dataclass(slots=True)
class Recording:
    """A machine all of whose programs are traced, and what its runtime was told."""

    machine: Machine
    directory: Path
    traces: list[Path] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def start(self) -> None:
        """Start the agent, and strace beside it: it stays our child, to be killed."""
        self.machine.prefix = [*strace(self._trace()), "-D"]
        self.machine.start()

    def stop(self, *, kill: bool = False) -> None:
        assert self.machine.process
        tracer = tracer_of(self.machine.process.pid)
        if kill:
            self.machine.kill()
        else:
            self.machine.stop()
        until(lambda: is_over(tracer), "all of the agent is recorded")

    def call(self, verb: str, pod: Pod) -> None:
        began = time.time()
        done = self.machine.call(verb, pod)
        given = addresses(done) if verb == "ADD" else ()
        assert done.status == 0, done
        self.calls.append(Call(verb, pod.container_id, began, time.time(), given))

    def keep_deletion(self, pod: Pod) -> None:
        """A deletion while no agent runs, the launcher traced."""
        trace, began = self._trace(), time.time()
        subprocess.run(
            [*strace(trace), self.machine.launcher.binary],
            env=self.machine.environment("DEL", pod),
            input=self.machine.stdin(None, None),
            check=True,
            timeout=60,
        )
        self.calls.append(Call("DEL", pod.container_id, began, time.time()))

    def ops(self) -> list[Op]:
        return read(self.traces, self.machine.state)

    def _trace(self) -> Path:
        self.traces.append(self.directory / f"{len(self.traces)}.trace")
        return self.traces[-1]


@dataclass(frozen=True, slots=True)
class Found:
    """What a start after the loss of power would find."""

    held: dict[str, tuple[str, ...]]
    started: dict[str, int]
    waiting: dict[str, int]

    def wrong(self, calls: Sequence[Call], moment: float) -> Iterator[str]:
        """What had been acknowledged by *moment*, and is not there."""
        for container_id in sorted({call.container_id for call in calls}):
            mine = [call for call in calls if call.container_id == container_id]
            if any(call.began < moment <= call.ended for call in mine):
                continue  # between two states: either will do
            done = [call for call in mine if call.ended < moment]
            if done and done[-1].verb == "ADD" and self.effective(container_id) != done[-1].given:
                yield f"{container_id}: ADD gave {done[-1].given}: {self}"
            if done and done[-1].verb == "DEL" and self.effective(container_id):
                yield f"{container_id}: was deleted: {self}"
        taken = [address for given in self.held.values() for address in given]
        if len(taken) != len(set(taken)):
            yield f"an address twice: {self.held}"

    def effective(self, container_id: str) -> tuple[str, ...]:
        """What it has once the deletions that wait are done."""
        if self.waiting.get(container_id, 0) > self.started.get(container_id, 0):
            return ()
        return self.held.get(container_id, ())


def find(directory: Path) -> Found:
    """Open *directory* as an agent does.  Raises StoreUnavailable."""
    store = open_store(directory / "isthmus.db")
    try:
        records = [one for one in store.load().records if one.state is State.HELD]
    finally:
        store.close()
    waiting: dict[str, int] = {}
    for entry in Spool(directory / "spool").pending():
        who = key_of(entry.request)
        assert who is not None
        waiting[who.container_id] = entry.request.started_ns
    return Found(
        {one.who.container_id: tuple(str(each.ip) for each in one.addresses) for one in records},
        {one.who.container_id: one.started_ns for one in records},
        waiting,
    )


@contextmanager
def laid_out(image: dict[str, bytes]) -> Iterator[Path]:
    """Write *image* to a directory of its own."""
    directory = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        for name, content in image.items():
            # What is shared between processes by mapping is made anew after a boot.
            if not name.endswith("-shm") and name != "spool":
                path = directory / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
        yield directory
    finally:
        shutil.rmtree(directory)


def lose_power(root: Path, ops: Sequence[Op], judge: Judge, moments: int) -> list[str]:
    """What was wrong at up to *moments* moments of *ops*, in every way we can think of."""
    dice = random.Random(7)
    chosen = set(range(len(ops) + 1))
    if len(chosen) > moments:
        chosen = {*dice.sample(sorted(chosen), moments - 100), *range(80), *range(len(ops))[-20:]}
    disk, wrong = Disk(root), []
    for number in range(len(ops) + 1):
        moment = ops[number].at if number < len(ops) else time.time()
        if number in chosen:
            for image in [*disk.images(dice), *disk.torn(dice)]:
                wrong += [
                    f"before op {number} of {len(ops)}: {what}"
                    for what in _judged(image, moment, judge)
                ]
        if number < len(ops):
            disk.apply(ops[number])
    return wrong


def _judged(image: dict[str, bytes], moment: float, judge: Judge) -> list[str]:
    with laid_out(image) as directory:
        try:
            return list(judge(directory, moment))
        except Exception as exc:  # noqa: BLE001 - what cannot be opened is what we look for
            return [f"{type(exc).__name__}: {exc}"]
