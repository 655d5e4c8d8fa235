"""Keys for heartbeats: handed over between two nodes by TLS, with the certificates of both.

    who begins ── TLS 1.3, both certificates of the authority, both naming nodes ──► the other
                        session (8 random bytes) and key (32), for this pair alone
                        ◄── one byte: I have them

A heartbeat then costs one HMAC (some microseconds; a signature is a hundred times as much, and
nothing of Python's own makes one).  The key is in memory alone, and made anew each hour, so that a
certificate which has ended is noticed.
"""

import asyncio
import logging
import secrets
import ssl
from collections.abc import Callable
from typing import Any

from announcement.frames import KEY_BYTES, SESSION_BYTES, Session, Unreadable, session_of
from ipam.tls import NODE, BadCredentials, TLSFiles, identify
from net.address import IPAddress

PATIENCE_S = 2.0
LIFE_S = 3600.0
_ACCEPTED = b"\1"

log = logging.getLogger(__name__)


class NobodyThere(Exception):
    """The machine is there, and no agent on it announces."""


class NotReached(Exception):
    """No session could be made; the message says why."""


class Sessions:
    """All of them of one node; within an event loop.  *clock*: monotonic seconds."""

    def __init__(
        self,
        name: str,
        files: TLSFiles,
        port: int,
        *,
        clock: Callable[[], float],
        host: str | None = None,
    ) -> None:
        """*host*: at which of this machine's addresses to be there, None: at all."""
        self._name, self._files, self._port, self._clock = name, files, port, clock
        self._host = host
        self._of: dict[str, list[Session]] = {}
        self._by_id: dict[bytes, Session] = {}
        self._server: asyncio.Server | None = None
        self._stamp: object = None
        self.trouble = ""

    async def serve(self) -> None:
        """Be there for others who begin, by the files as they are now; to be called again."""
        stamp = self._files.stamp()
        if stamp == self._stamp:
            return
        try:
            context = self._context(ssl.PROTOCOL_TLS_SERVER)
            former, self._server = self._server, None
            if former:
                former.close()
            self._server = await asyncio.start_server(
                self._take,
                self._host,
                self._port,
                ssl=context,
                ssl_handshake_timeout=PATIENCE_S,
                ssl_shutdown_timeout=PATIENCE_S,
            )
        except (BadCredentials, OSError) as exc:
            self.trouble = f"no sessions with other nodes: {exc}"
            return
        self._stamp, self.trouble = stamp, ""

    def close(self) -> None:
        if self._server:
            self._server.close()

    def of(self, peer: str) -> Session | None:
        """The newest with *peer*."""
        found = self._of.get(peer)
        return found[-1] if found else None

    def find(self, datagram: bytes) -> Session:
        """The session that *datagram* says it is of.  Raises Unreadable."""
        found = self._by_id.get(session_of(datagram))
        if found is None:
            raise Unreadable("of a session that is over")
        return found

    def is_old(self, peer: str) -> bool:
        found = self.of(peer)
        return found is None or self._clock() - found.made_at > LIFE_S

    async def begin(self, peer: str, address: IPAddress) -> None:
        """Make a session with *peer*.  Raises NobodyThere, NotReached."""
        made = Session(
            peer=peer,
            session=secrets.token_bytes(SESSION_BYTES),
            key=secrets.token_bytes(KEY_BYTES),
            began=True,
            made_at=self._clock(),
        )
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._hand_over(made, str(address))
        except ConnectionRefusedError as exc:
            raise NobodyThere(f"nobody listens at {address}:{self._port}") from exc
        except TimeoutError as exc:
            raise NotReached(f"no answer from {address}:{self._port}") from exc
        except (BadCredentials, OSError, EOFError) as exc:  # ssl.SSLError is an OSError
            raise NotReached(f"{address}:{self._port}: {_reason(exc)}") from exc
        self._keep(made)

    async def _hand_over(self, made: Session, host: str) -> None:
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        reader, writer = await asyncio.open_connection(
            host, self._port, ssl=context, server_hostname=""
        )
        try:
            if (name := _node_of(writer)) != made.peer:
                raise NotReached(f"{host} is node {name or 'nobody'}, and not {made.peer}")
            writer.write(made.session + made.key)
            await reader.readexactly(len(_ACCEPTED))
        finally:
            writer.transport.abort()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From who begins."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                peer = _node_of(writer)
                given = await reader.readexactly(SESSION_BYTES + KEY_BYTES)
                if peer in ("", self._name):
                    return
                session, key = given[:SESSION_BYTES], given[SESSION_BYTES:]
                self._keep(Session(peer, session, key, began=False, made_at=self._clock()))
                writer.write(_ACCEPTED)
                await writer.drain()
                await reader.read(1)
        except (TimeoutError, OSError, EOFError):
            pass  # who began tries again
        finally:
            writer.transport.abort()

    def _keep(self, made: Session) -> None:
        """Two with each: both may begin at once, and what is on its way is of the former."""
        kept = [*self._of.get(made.peer, ()), made]
        for old in kept[:-2]:
            self._by_id.pop(old.session, None)
        self._of[made.peer] = kept[-2:]
        self._by_id[made.session] = made

    def _context(self, protocol: int) -> ssl.SSLContext:
        """Raises BadCredentials."""
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # Nodes are known by a name that is no host's: see _node_of.
        context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
        files = self._files
        try:
            context.load_cert_chain(files.certificate, files.key, password="")
            context.load_verify_locations(files.ca)
        except (OSError, ValueError) as exc:
            raise BadCredentials(
                f"{files.certificate}, {files.key}, {files.ca}: {_reason(exc)}"
            ) from exc
        return context


def _node_of(writer: asyncio.StreamWriter) -> str:
    """The node that the other's certificate names, or ""."""
    shown: Any = writer.get_extra_info("peercert") or {}
    names = [value for kind, value in shown.get("subjectAltName", ()) if kind == "URI"]
    for part in shown.get("subject", ()):
        names += [value for kind, value in part if kind == "commonName"]
    who = identify(name for name in names if name.startswith(NODE))
    return who.node if who else ""


def _reason(exc: Exception) -> str:
    if isinstance(exc, EOFError):
        return "it ended the connection: does it trust our certificate?"
    return str(getattr(exc, "verify_message", "") or getattr(exc, "reason", None) or exc)
