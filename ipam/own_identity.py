"""ipamd's own certificates, where it has the authority's key: made at the start and renewed.

    state directory/ipamd.pem               what it serves with, and the key
    state directory/admin.pem, admin.key    what `isthmus ipam` beside it asks with
    state directory/ca.pem                  the authority, for the same

A certificate of another authority than the present one is made anew at once; so the authority is
exchanged by exchanging its files (first a ca.pem with both, everywhere).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from ipam import signing
from ipam.signing import Signer
from ipam.tls import ADMIN, BadCredentials, TLSFiles, write_private

LIFE = timedelta(days=7)
LOOK_S = 30.0

log = logging.getLogger(__name__)


class OwnIdentity:
    """*hosts*: where else than under its own name ipamd is reached; *clock*: monotonic seconds."""

    def __init__(
        self,
        directory: Path,
        *,
        ca: Path,
        ca_key: Path,
        hosts: Sequence[str],
        clock: Callable[[], float],
        now: Callable[[], datetime] = signing.now,
    ) -> None:
        self.files = TLSFiles(
            certificate=directory / "ipamd.pem", key=directory / "ipamd.pem", ca=ca
        )
        self._directory = directory
        self._authority = TLSFiles(certificate=ca, key=ca_key, ca=ca)
        self._hosts = tuple(hosts)
        self._clock, self._now = clock, now
        self._stamp: object = None
        self._renew_at = 0.0

    def signer(self) -> Signer:
        """The authority as it is now.  Raises BadCredentials."""
        return Signer.load(self._authority.ca, self._authority.key)

    def renew(self) -> None:
        """Make all of it, if it is time, or the authority is another.  Raises BadCredentials."""
        stamp = self._authority.stamp()
        if stamp == self._stamp and self._clock() < self._renew_at:
            return
        signer = self.signer()
        own = signer.server(self._hosts, now=self._now(), life=LIFE)
        admin = signer.client(f"{ADMIN}:local", now=self._now(), life=LIFE)
        write_private(self.files.certificate, own.certificate + own.key)
        write_private(self._directory / "admin.key", admin.key)
        write_private(self._directory / "admin.pem", admin.certificate)
        write_private(self._directory / "ca.pem", self._authority.ca.read_bytes())
        self._stamp = stamp
        self._renew_at = self._clock() + LIFE.total_seconds() / 3
        log.info("own certificates made", extra={"directory": str(self._directory)})

    async def run(self) -> None:
        """Renew until cancelled; what there is serves on where that fails."""
        told = ""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await asyncio.to_thread(self.renew)
                told = ""
            except (BadCredentials, OSError) as exc:
                if str(exc) != told:
                    log.error("own certificates not renewed", extra={"error": str(exc)})
                told = str(exc)
