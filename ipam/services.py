"""Services of type LoadBalancer get addresses from pools, where no cloud gives them any.

    Services ──► which are ours, what each asks for ──► one transaction ──► status, Event
    (reflector)        (ipam.load_balancers)           (ipam.assigning)     (kube.services)

Decided from what there is, again and again, by every replica.  Nothing is given or taken back
while the API server, the store or the trust in it is away; an absence is asked for once more, past
the copy.  A status stops showing an address before that is free for others.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from typing import Protocol

from ipam.cluster import Config
from ipam.errors import IPAMError
from ipam.load_balancers import Choice, Demand, demand_of, is_ours, shown
from ipam.refusals import Exhausted, Forbidden, Invalid, Refused, Unknown
from ipam.view import View
from kube import services as kube_services
from kube.client import Client
from kube.errors import Conflict, KubeError, NotFound
from kube.events import About, Severity, Told
from kube.objects import ASSIGNED, LOAD_BALANCER, Condition, Service
from kube.reflector import Reflector, Selection
from net.address import IPAddress

TICK_S = 5.0
_LONGEST = 512
_REASONS: Mapping[type[Refused], str] = {
    Exhausted: "NoFreeAddress",
    Forbidden: "AddressInUse",
    Invalid: "InvalidRequest",
    Unknown: "InvalidRequest",
}

log = logging.getLogger(__name__)


class Authority(Protocol):
    """Who decides, see ipam.assigning.Assigning."""

    async def assign(self, demand: Demand, kept: Iterable[IPAddress]) -> Choice: ...
    async def release(self, service: str) -> None: ...


class ServiceWatch:
    """One for a replica; *tell* puts an Event, *now* says the time of a condition."""

    def __init__(
        self,
        client: Client,
        authority: Authority,
        view: Callable[[], View | None],
        *,
        tell: Callable[[Told], None],
        random: Random,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """*view*: the store as it is followed, None while it is not, or not trusted."""
        self._client = client
        self._authority = authority
        self._view = view
        self._tell = tell
        self._now = now
        self._trouble = ""
        self.reflector: Reflector[Service, Service | None] = Reflector(
            client,
            Selection(path=kube_services.SERVICES, kind=Service, keep=_kept),
            random=random,
        )

    async def run(self) -> None:
        """Follow the Services and act until cancelled."""
        await self.reflector.drive(self.tick, every_s=TICK_S)

    async def tick(self) -> None:
        """Do what is to be done now; what fails is tried again at the next."""
        view = self._view()
        if view is None or view.config is None or self.reflector.trouble:
            return
        try:
            ours = self._ours(view.config)
            lost = self._lost(view)
            for key, service in ours.items():
                kept = {one for one, owners in lost.items() if owners - {key}}
                await self._serve(key, service, view, kept)
            for name in [name for name in view.services if name not in ours]:
                await self._leave(name, view)
            self._trouble = ""
        except (IPAMError, KubeError) as exc:
            if str(exc) != self._trouble:
                log.warning("addresses of Services wait", extra={"error": str(exc)})
            self._trouble = str(exc)

    def _ours(self, config: Config) -> dict[str, Service]:
        """By namespace/name; first those that show what they had."""
        found = {key: one for key, one in self.reflector.objects.items() if one}
        ours = {key: one for key, one in found.items() if is_ours(one, config)}
        return dict(sorted(ours.items(), key=lambda item: (not item[1].shown, item[0])))

    def _lost(self, view: View) -> dict[IPAddress, set[str]]:
        """What Services show as theirs and the store does not know, as one that was lost."""
        lost: dict[IPAddress, set[str]] = {}
        for key, service in self.reflector.objects.items():
            for address in shown(service) if service else ():
                if address not in view.addresses:
                    lost.setdefault(address, set()).add(key)
        return lost

    async def _serve(
        self, key: str, service: Service, view: View, kept: Iterable[IPAddress]
    ) -> None:
        """Raises IPAMError, KubeError: it is tried again, and nothing was taken from it."""
        try:
            choice = await self._authority.assign(demand_of(service), kept)
        except tuple(_REASONS) as exc:
            if view.config is None:
                raise
            await self._show(service, (), _condition("False", _REASONS[type(exc)], str(exc)))
            if key in view.services:
                await self._authority.release(key)
            return
        addresses = tuple(map(str, choice.addresses))
        reason = "PartlyAssigned" if choice.lacks else "Assigned"
        message = choice.lacks or f"isthmus gave {' and '.join(addresses)}"
        await self._show(service, addresses, _condition("True", reason, message))

    async def _leave(self, key: str, view: View) -> None:
        """Take back what a Service has that is gone, or no longer ours."""
        namespace, _, name = key.partition("/")
        try:
            service = await kube_services.get(self._client, namespace, name)
        except NotFound:
            service = None
        if service and view.config and is_ours(service, view.config):
            return  # the copy is old
        if service and (said := kube_services.find_condition(service)) and said.status == "True":
            mine = {str(one) for one in view.services[key].addresses}
            others = tuple(one for one in service.shown if one not in mine)
            await self._show(service, others, _condition("False", "NotOurs", "given back"))
        await self._authority.release(key)
        log.info("addresses of a Service are free", extra={"service": key})

    async def _show(
        self, service: Service, addresses: tuple[str, ...], condition: Condition
    ) -> None:
        """Write what the status does not say yet, and tell of it."""
        former = kube_services.find_condition(service)
        if former == condition and service.shown == addresses and service.is_virtual:
            return
        at = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        with suppress(Conflict, NotFound):  # the watch brings what changed
            await kube_services.show_addresses(self._client, service, addresses, condition, at=at)
            meta = service.metadata
            about = About(kind="Service", name=meta.name, namespace=meta.namespace, uid=meta.uid)
            good = condition.status == "True" and condition.reason == "Assigned"
            severity = Severity.NORMAL if good else Severity.WARNING
            if condition.reason != "NotOurs":
                self._tell(
                    Told(
                        about=about,
                        reason=condition.reason,
                        message=condition.message,
                        severity=severity,
                    )
                )
            log.info(
                "told a Service of its addresses",
                extra={
                    "service": f"{meta.namespace}/{meta.name}",
                    "addresses": addresses,
                    "said": condition.message,
                },
            )


def _kept(service: Service) -> Service | None:
    """Others are not kept: they have no addresses of ours."""
    return service if service.spec.type == LOAD_BALANCER else None


def _condition(status: str, reason: str, message: str) -> Condition:
    return Condition(type=ASSIGNED, status=status, reason=reason, message=message[:_LONGEST])
