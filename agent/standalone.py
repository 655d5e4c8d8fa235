"""The CNI plugin in one process: the same verbs, for a host without an agent.

Here is what needs no node: VERSION, and an environment that is wrong.  The launcher answers
those by itself; whoever runs this program directly waits for no more than it takes, so the
rest is imported after that.
"""

import os
import sys

from cni.environment import Verb, check
from cni.errors import CNIError, error_document
from cni.versions import NEWEST, SUPPORTED, VERSION_DOCUMENT

_ABOUT = "CNI isthmus plugin, standalone"


def main() -> int:
    """Serve the one request in environment and stdin; returns the exit status."""
    _occupy_standard_descriptors()
    command = os.environ.get("CNI_COMMAND", "")
    if not command:
        sys.stderr.write(f"{_ABOUT}\nCNI protocol versions supported: {', '.join(SUPPORTED)}\n")
        return 0
    if command == Verb.VERSION:
        return 0 if deliver(VERSION_DOCUMENT) else 1
    try:
        check(environment())
    except CNIError as exc:
        deliver(error_document(exc, NEWEST))
        return 1
    from agent.single_call import serve_one

    return serve_one()


def environment() -> dict[str, str]:
    """Our environment as the launcher sends it: in UTF-8, whatever the locale is."""
    return {
        name.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape")
        for name, value in os.environb.items()
    }


def deliver(answer: bytes) -> bool:
    """Write *answer* to standard output; whether all of it was taken."""
    try:
        with open(1, "wb", closefd=False) as stdout:
            stdout.write(answer)
    except OSError:
        return False
    return True


def _occupy_standard_descriptors() -> None:
    """Keep files of ours from taking the place of what the caller closed.

    The wrong way round, so that using them is an error and not a success.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if fd else os.O_WRONLY)
