"""The links on which this node answers, opened and given up as they come and go."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from dataplane.answering import LinkUnusable, Responder
from dataplane.errors import DataplaneError
from dataplane.neighbours import Claim, Question
from dataplane.survey import interfaces
from net.address import IPAddress

log = logging.getLogger(__name__)


class Answers:
    """Within an event loop.  *heard* is told of each question and claim, and where it came.

    *wanted*: names of links, none: those that have one of the addresses *own*.
    """

    def __init__(
        self,
        wanted: Collection[str],
        own: Callable[[], Iterable[IPAddress]],
        heard: Callable[[Question | Claim, Responder], None],
    ) -> None:
        self._wanted, self._own, self._heard = wanted, own, heard
        self._links: dict[str, Responder] = {}
        self.troubles: dict[str, str] = {}

    @property
    def macs(self) -> frozenset[str]:
        return frozenset(link.mac.hex(":") for link in self._links.values())

    def settle(self) -> None:
        """Open what should be and is not; close what changed, or should not be any more."""
        try:
            names = set(self._wanted) or self._with_own_address()
        except DataplaneError as exc:
            self.troubles = {"links": str(exc)}
            return
        self.troubles = {} if names else {"links": "no link has an address of this node"}
        for name, link in list(self._links.items()):
            if name not in names or not link.is_current():
                self._give_up(name)
        for name in names - self._links.keys():
            try:
                self._open(name)
            except LinkUnusable as exc:
                self.troubles[name] = str(exc)

    def announce(self, addresses: Collection[IPAddress]) -> None:
        for link in list(self._links.values()):
            try:
                link.announce(addresses)
            except LinkUnusable as exc:
                self._fail(link, exc)

    def listen_for(self, addresses: Collection[IPAddress]) -> None:
        for link in self._links.values():
            link.listen_for(addresses)

    def answer(self, question: Question, link: Responder) -> None:
        try:
            link.answer(question)
        except LinkUnusable as exc:
            self._fail(link, exc)

    def close(self) -> None:
        for name in list(self._links):
            self._give_up(name)

    def _with_own_address(self) -> set[str]:
        own = set(self._own())
        return {
            name
            for name, addresses in interfaces().items()
            if any(each.ip in own for each in addresses)
        }

    def _open(self, name: str) -> None:
        link = self._links[name] = Responder(name)
        loop = asyncio.get_running_loop()
        for sock in link.sockets:
            loop.add_reader(sock, self._receive, link, sock)
        log.info("answers for addresses of Services here", extra={"link": name})

    def _receive(self, link: Responder, sock: object) -> None:
        try:
            for said in link.receive(sock):  # type: ignore[arg-type]
                self._heard(said, link)
        except LinkUnusable as exc:
            self._fail(link, exc)

    def _fail(self, link: Responder, exc: LinkUnusable) -> None:
        """It is opened anew when that can be."""
        self.troubles[link.ifname] = str(exc)
        self._give_up(link.ifname)

    def _give_up(self, name: str) -> None:
        if (link := self._links.pop(name, None)) is None:
            return
        loop = asyncio.get_running_loop()
        for sock in link.sockets:
            with suppress(OSError, ValueError):
                loop.remove_reader(sock)
        link.close()
