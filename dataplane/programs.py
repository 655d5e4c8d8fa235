"""Run programs of the host: for looking at it and for demonstrations, never on a verb's path."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataplane.errors import DataplaneError


class ProgramMissing(DataplaneError):
    """A program that is not there, cannot be run, or does not end in time."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended; *status* is negative for a signal."""

    status: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """The first line it complained with, or its status where it said nothing."""
        said = (self.stderr or self.stdout).strip().partition("\n")[0]
        return said or f"exit status {self.status}"


def run(
    argv: Sequence[str],
    *,
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> Done:
    """Run *argv* to its end.  Raises ProgramMissing; a non-zero status is the caller's to judge."""
    try:
        done = subprocess.run(
            [*argv],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=None if environment is None else dict(environment),
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise ProgramMissing(f"{argv[0]} did not end within {timeout:g} s") from exc
    except OSError as exc:
        raise ProgramMissing(f"cannot run {argv[0]}: {exc.strerror or exc}") from exc
    return Done(done.returncode, done.stdout, done.stderr)


class Running:
    """A program in the background, in a session of its own, that writes to *log*."""

    def __init__(
        self, argv: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None
    ) -> None:
        with log.open("ab") as sink:
            try:
                self._process = subprocess.Popen(
                    [*argv],
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    start_new_session=True,
                    env=None if environment is None else dict(environment),
                )
            except OSError as exc:
                raise ProgramMissing(f"cannot run {argv[0]}: {exc.strerror or exc}") from exc

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def let_go(self) -> None:
        """Leave it running when this process ends."""
        # Popen warns about a child nobody waited for; this one is left on purpose.
        self._process.returncode = 0

    def stop(self, *, kill: bool = False, timeout: float = 10.0) -> None:
        """End it: SIGTERM and, when that does not end it in time or with *kill*, SIGKILL."""
        if self.has_ended:
            return
        os.kill(self.pid, signal.SIGKILL if kill else signal.SIGTERM)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
