"""What a pod's annotations, and its namespace's, ask of its first interface.

    isthmus.dev/pool                    a pool of the cluster, or one of each family: "blue,blue6"
    isthmus.dev/address                 an address, or one of each family
    isthmus.dev/mac                     the interface's hardware address
    kubernetes.io/ingress-bandwidth     limits in bit/s, as Kubernetes writes quantities: "10M"
    kubernetes.io/egress-bandwidth

A namespace can say the pool and the bandwidth of its pods that do not say them.  What the runtime
asks for by itself (CNI_ARGS, capabilities) has precedence.  What is not known of isthmus.dev/ is
told in an Event, and no more: it may be of another version.  Whatever cannot be honoured fails the
ADD: a pod with another address or without its limit would be wrong for as long as it lives.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from difflib import get_close_matches

from cni.args import Pod
from cni.capabilities import parse_mac, usual_burst
from cni.config import NetConf
from cni.document import parse_address
from cni.errors import CNIError, ErrorCode
from dataplane.model import Bandwidth
from net.address import IPAddress

POOL = "isthmus.dev/pool"
ADDRESS = "isthmus.dev/address"
MAC = "isthmus.dev/mac"
INGRESS = "kubernetes.io/ingress-bandwidth"
EGRESS = "kubernetes.io/egress-bandwidth"
OURS = "isthmus.dev/"
KNOWN = (POOL, ADDRESS, MAC, INGRESS, EGRESS)
OF_NAMESPACES = (POOL, INGRESS, EGRESS)

IFNAME = "eth0"
"""The interface that Kubernetes knows; others of a pod are their own networks' matter."""

_QUANTITY = re.compile(
    r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:([kMGTP])(i?)|(Ki)|[eE]([+]?[0-9]{1,2}))?"
)
_LOWEST, _HIGHEST = 1_000, 10**15  # bit/s, by Kubernetes itself
_POOL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Nothing of it is asked for by default."""

    pools: tuple[str, ...] = ()
    addresses: tuple[IPAddress, ...] = ()
    mac: str = ""
    bandwidth: Bandwidth | None = None


def is_for_us(key: str) -> bool:
    return key in KNOWN or key.startswith(OURS)


def unheeded(pod: Pod, of_pod: Mapping[str, str], of_namespace: Mapping[str, str]) -> Iterator[str]:
    """Say which annotations ask for nothing that there is, a line each."""
    for key in sorted(of_pod):
        if is_for_us(key) and key not in KNOWN:
            known = [one.removeprefix(OURS) for one in KNOWN if one.startswith(OURS)]
            near = get_close_matches(key.removeprefix(OURS), known, n=1)
            meant = f"did you mean {OURS}{near[0]}?" if near else f"there are {', '.join(KNOWN)}"
            yield f"annotation {key} of pod {pod.namespace}/{pod.name} is not known: {meant}"
    for key in sorted(of_namespace):
        if is_for_us(key) and key not in OF_NAMESPACES:
            allowed = ", ".join(OF_NAMESPACES)
            yield f"annotation {key} of namespace {pod.namespace} says nothing: {allowed} do"


def parse(pod: Pod, of_pod: Mapping[str, str], of_namespace: Mapping[str, str]) -> Wishes:
    """Read the annotations of *pod* and its namespace; CNIError 7 names the one that is wrong."""
    reader = _Reader(pod, of_pod, of_namespace)
    return Wishes(
        pools=reader.pools(),
        addresses=reader.addresses(),
        mac=reader.mac(),
        bandwidth=reader.bandwidth(),
    )


def applied(conf: NetConf, wishes: Wishes) -> NetConf:
    """*conf* as *wishes* would have it, where the runtime did not say otherwise.

    CNIError 2 for a pool or an address that this network cannot give.
    """
    ipam = conf.ipam
    if (wishes.pools or wishes.addresses) and (ipam is None or ipam.delegate):
        raise CNIError(
            ErrorCode.UNSUPPORTED_FIELD,
            f"{POOL if wishes.pools else ADDRESS} cannot be honoured",
            f"the addresses of network {conf.name} are not given by isthmus",
        )
    if wishes.pools and ipam:
        if not ipam.from_blocks:
            raise CNIError(
                ErrorCode.UNSUPPORTED_FIELD,
                f"{POOL} cannot be honoured",
                f"network {conf.name} gives addresses of ranges of its own",
            )
        ipam = replace(ipam, pools=wishes.pools)
    requested = replace(
        conf.requested,
        addresses=conf.requested.addresses or wishes.addresses,
        mac=conf.requested.mac or wishes.mac,
    )
    bandwidth = conf.bandwidth or wishes.bandwidth
    return replace(conf, ipam=ipam, requested=requested, bandwidth=bandwidth)


@dataclass(frozen=True, slots=True)
class _Reader:
    pod: Pod
    of_pod: Mapping[str, str]
    of_namespace: Mapping[str, str]

    def pools(self) -> tuple[str, ...]:
        names = self._listed(POOL)
        if not all(map(_POOL.fullmatch, names)):
            self._refuse(POOL, "the name of a pool, or different ones with commas between")
        return names

    def addresses(self) -> tuple[IPAddress, ...]:
        found = [parse_address(text) for text in self._listed(ADDRESS)]
        if not all(found) or len({a.version for a in found if a}) < len(found):
            self._refuse(ADDRESS, "an address, or one of each family with a comma between")
        return tuple(address for address in found if address)

    def mac(self) -> str:
        text = self._text(MAC)
        mac = parse_mac(text) if text else ""
        if mac is None:
            self._refuse(MAC, "the six-byte address of one station, such as 02:00:00:00:00:01")
        return mac or ""

    def bandwidth(self) -> Bandwidth | None:
        ingress, egress = self._rate(INGRESS), self._rate(EGRESS)
        if not ingress and not egress:
            return None
        return Bandwidth(
            ingress_rate=ingress,
            ingress_burst=usual_burst(ingress),
            egress_rate=egress,
            egress_burst=usual_burst(egress),
        )

    def _rate(self, key: str) -> int:
        if not (text := self._text(key)):
            return 0
        rate = _quantity(text)
        if rate is None or not _LOWEST <= rate <= _HIGHEST:
            self._refuse(key, "bit/s from 1k to 1P, such as 10M")
        return int(rate or 0)

    def _listed(self, key: str) -> tuple[str, ...]:
        if not (text := self._text(key)):
            return ()
        names = tuple(part.strip() for part in text.split(","))
        if len(set(names)) < len(names):
            self._refuse(key, "without anything twice")
        return names

    def _text(self, key: str) -> str:
        if key in self.of_pod:
            return self.of_pod[key].strip()
        return self.of_namespace.get(key, "").strip() if key in OF_NAMESPACES else ""

    def _refuse(self, key: str, allowed: str) -> None:
        whose = f"pod {self.pod.namespace}/{self.pod.name}"
        if key not in self.of_pod:
            whose = f"namespace {self.pod.namespace}"
        value = self.of_pod.get(key, self.of_namespace.get(key, ""))
        raise CNIError(
            ErrorCode.INVALID_CONFIG,
            f'annotation {key} of {whose} is "{value[:80]}"',
            f"it must be {allowed}",
        )


def _quantity(text: str) -> Decimal | None:
    """A quantity as the API writes it (resource.Quantity); None for anything else."""
    if not (match := _QUANTITY.fullmatch(text)):
        return None
    number, unit, binary, kibi, exponent = match.groups()
    if unit == "k" and binary:
        return None  # it is Ki
    if exponent:
        return Decimal(number).scaleb(int(exponent))
    power = 1 if kibi else "kMGTP".index(unit) + 1 if unit else 0
    return Decimal(number) * Decimal(1024 if kibi or binary else 1000) ** power
