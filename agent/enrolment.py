"""This node's certificate: got by a service account's token, and again long before it ends.

Each time with a new key, which is made here by a run of our own program, since what makes keys
would stay in memory, and which leaves this node never.  Key and certificate are in one file, so
that there is no moment at which they do not fit each other.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from agent.program import own_command
from dataplane.errors import DataplaneError
from dataplane.programs import run
from ipam.enrolling import Enrolled
from ipam.errors import IPAMError
from ipam.tls import BadCredentials, write_private

SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----\n.*?-----END \1-----\n", re.DOTALL)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """PEM of a new key, and of the request for its certificate."""

    key: bytes
    request: bytes


def make_request() -> Request:
    """Raises BadCredentials."""
    try:
        done = run([*own_command(), "ipam", "certificates", "request"])
    except DataplaneError as exc:
        raise BadCredentials(f"no key for this node's certificate: {exc}") from exc
    parts = {match[1]: match[0].encode() for match in _PEM.finditer(done.stdout)}
    key, request = parts.get("PRIVATE KEY"), parts.get("CERTIFICATE REQUEST")
    if key is None or request is None:
        raise BadCredentials(f"no key for this node's certificate: {done.complaint}")
    return Request(key, request)


class Enrolment:
    """Keeps *file*; *ask* is ipam.enrolling.enroll, with all but the request said."""

    def __init__(
        self,
        file: Path,
        node: str,
        ask: Callable[[bytes], Awaitable[Enrolled]],
        *,
        random: Random,
        make: Callable[[], Request] = make_request,
        renewed: Callable[[], None] = lambda: None,
    ) -> None:
        """*renewed* is called when there is another certificate."""
        self._file, self._node, self._ask = file, node, ask
        self._random, self._make, self._renewed = random, make, renewed
        self.trouble = ""

    async def run(self) -> None:
        """Get one now, and each time it is time to, until cancelled."""
        pause = SHORTEST_PAUSE_S
        while True:
            try:
                wait = await self.renew()
                pause = SHORTEST_PAUSE_S
            except IPAMError as exc:
                if str(exc) != self.trouble:
                    log.warning("no certificate for this node yet", extra={"error": str(exc)})
                self.trouble = str(exc)
                wait, pause = pause, min(2 * pause, LONGEST_PAUSE_S)
            await asyncio.sleep(wait * (0.75 + 0.5 * self._random.random()))

    def problems(self) -> list[str]:
        return [f"no new certificate for this node: {self.trouble}"] if self.trouble else []

    async def renew(self) -> float:
        """Get a certificate; return in how many seconds to get another.  Raises IPAMError."""
        made = await asyncio.to_thread(self._make)
        got = await self._ask(made.request)
        if got.node != self._node:
            raise BadCredentials(
                f"ipamd says that this is node {got.node}, and the configuration {self._node}"
            )
        await asyncio.to_thread(write_private, self._file, got.certificate + made.key)
        self.trouble = ""
        self._renewed()
        log.info("certificate of this node is new", extra={"node": got.node})
        return got.renew_after_s
