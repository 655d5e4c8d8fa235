"""What somebody who waits sees: each step when it begins, how long it took, and why it failed."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SHOWN_OF_A_FAILURE = 4000  # characters of its output


class KindError(Exception):
    """The cluster cannot be brought up, used or taken down; the message says why."""


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is done now, and afterwards how many seconds it took."""
    say(what)
    began = time.monotonic()
    yield
    sys.stderr.write(f"    {time.monotonic() - began:.0f} s\n")


def say(what: str) -> None:
    """Say something to whoever watches; standard output is for the results of commands."""
    sys.stderr.write(f"==> {what}\n")
    sys.stderr.flush()


def run(
    *argv: str | Path,
    stdin: str | bytes | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> str:
    """Run a program to its end and return its standard output.

    KindError with the end of what it said where it fails, is missing or takes longer.
    """
    content = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        done = subprocess.run(
            list(map(str, argv)),
            input=content or b"",
            capture_output=True,
            timeout=timeout,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KindError(f"{argv[0]}: {error}") from error
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        said = (output + done.stderr.decode(errors="replace")).strip()[-SHOWN_OF_A_FAILURE:]
        command = " ".join(map(str, argv))
        raise KindError(f"{command}: exit status {done.returncode}\n{said}")
    return output
