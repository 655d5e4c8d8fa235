"""Which Service has which frontend, where several claim one.  Pure."""

from collections.abc import Collection, Iterable

from proxy.model import Service, ServiceName
from proxy.plan import Frontend


class Claims:
    """Who claims what.  Of several the oldest has it, of equally old ones the first by name.

    The API server gives each cluster IP and NodePort once; external addresses may be anybody's.
    """

    def __init__(self) -> None:
        # Nearly every frontend has one claimant: a list for each would cost more than all else.
        self._first: dict[Frontend, tuple[str, ServiceName]] = {}
        self._others: dict[Frontend, set[tuple[str, ServiceName]]] = {}

    def put(self, service: Service, claimed: Iterable[Frontend]) -> set[ServiceName]:
        """Add what *service* claims; returns the Services that lost a frontend by it."""
        who, losers = (service.created, service.name), set()
        for frontend in claimed:
            first = self._first.setdefault(frontend, who)
            if first == who:
                continue
            self._others.setdefault(frontend, set()).add(max(first, who))
            if who < first:
                self._first[frontend] = who
                losers.add(first[1])
        return losers

    def drop(self, service: Service, claimed: Iterable[Frontend]) -> set[ServiceName]:
        """Take back what *service* claimed; returns the Services that gained a frontend by it."""
        who, gainers = (service.created, service.name), set()
        for frontend in claimed:
            others = self._others.get(frontend)
            if self._first.get(frontend) == who:
                del self._first[frontend]
                if others:
                    self._first[frontend] = heir = min(others)
                    others.discard(heir)
                    gainers.add(heir[1])
            elif others:
                others.discard(who)
            if others is not None and not others:
                del self._others[frontend]
        return gainers

    def owned(self, service: Service, claimed: Iterable[Frontend]) -> list[Frontend]:
        """Those of *claimed* that *service* has."""
        who = (service.created, service.name)
        return [each for each in claimed if self._first.get(each) == who]

    def conflicts(self) -> dict[Frontend, tuple[ServiceName, Collection[ServiceName]]]:
        """Frontends that several claim: who has each, and who would."""
        return {
            frontend: (self._first[frontend][1], sorted(name for _, name in others))
            for frontend, others in self._others.items()
        }
