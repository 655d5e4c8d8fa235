"""A plugin in front of another one: notes every call, and can hold one up."""

import errno
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.runtimes.host import Host, Service

# The name of a record sorts by time; it gets its final name only when it is complete.
SCRIPT = """#!/bin/sh
records={records}
record=$records/$(date +%s%N)-$CNI_COMMAND
mkdir "$record.new"
cat > "$record.new/stdin"
env > "$record.new/environment"
mv "$record.new" "$record"
if [ -p "$records/hold-$CNI_COMMAND" ]; then read -r _ < "$records/hold-$CNI_COMMAND"; fi
exec {program} < "$record/stdin"
"""


@dataclass(frozen=True, slots=True)
class Call:
    """One execution of the plugin, as the runtime made it."""

    environment: dict[str, str]
    stdin: str

    @property
    def verb(self) -> str:
        return self.environment["CNI_COMMAND"]

    @property
    def config(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.stdin)
        return parsed


@dataclass(frozen=True, slots=True)
class Recorder:
    """What one plugin of a host was called with."""

    records: Path

    def calls(self) -> list[Call]:
        directories = sorted(self.records.glob("*-[A-Z]*[A-Z]"))
        return [_read(path) for path in directories if path.is_dir()]

    def verbs(self) -> list[str]:
        return [call.verb for call in self.calls()]

    def hold(self, verb: str) -> None:
        """Keep the next call of *verb* from reaching the plugin until it is released."""
        os.mkfifo(self.records / f"hold-{verb}")

    def wait_for_held(self, verb: str, service: Service) -> int:
        """Return the descriptor that release() wants, once a call of *verb* is held."""
        opened: list[int] = []
        service.wait_until(partial(self._reader_is_there, verb, opened))
        return opened[0]

    def release(self, verb: str, descriptor: int) -> None:
        (self.records / f"hold-{verb}").unlink()
        os.write(descriptor, b"go\n")
        os.close(descriptor)

    def _reader_is_there(self, verb: str, opened: list[int]) -> bool:
        try:
            opened.append(os.open(self.records / f"hold-{verb}", os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return False
            raise
        return True


def record(host: Host, name: str) -> Recorder:
    """Put a recorder in front of the plugin *name* of *host*.

    The plugin keeps its name in a directory of its own, since some ask argv[0] who they are.
    """
    behind = host.directory / "behind"
    behind.mkdir(exist_ok=True)
    (host.plugins / name).rename(behind / name)
    records = host.directory / f"{name}.calls"
    records.mkdir()
    wrapper = host.plugins / name
    wrapper.write_text(SCRIPT.format(records=records, program=behind / name))
    wrapper.chmod(0o755)
    return Recorder(records)


def _read(path: Path) -> Call:
    lines = (path / "environment").read_text().splitlines()
    pairs = (line.partition("=") for line in lines)
    environment = {name: value for name, separator, value in pairs if separator}
    return Call(environment, (path / "stdin").read_text())
