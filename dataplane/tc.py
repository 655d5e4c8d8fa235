"""Rate limits of a pod, set on the host side of its veth.

    into the pod     tbf, the root qdisc of the veth
    out of the pod   ingress qdisc of the veth ── u32, all packets ──► mirred ──► ifb ── tbf

A packet from the pod is received by the veth, where nothing can be queued, so it is sent to an
ifb of its own and queued there.
"""

import errno
from collections.abc import Callable, Collection
from hashlib import sha256

from dataplane import rtnl
from dataplane.errors import DataplaneError, NetlinkError
from dataplane.model import Bandwidth
from dataplane.netlink import Netlink
from dataplane.qdisc import (
    INGRESS,
    INGRESS_HANDLE,
    ROOT,
    ROOT_HANDLE,
    Bucket,
    bucket,
    delete_qdisc,
    list_qdiscs,
    new_ifb,
    new_ingress,
    parse_qdisc,
    redirect,
    replace_tbf,
)

LIMIT_GROUP = 0x69736277  # marks our ifbs (docs/ownership.md)


class ShapingUnavailable(DataplaneError):
    """This kernel lacks what rate limits are made of; the message names it."""


def buckets(bandwidth: Bandwidth) -> tuple[Bucket | None, Bucket | None]:
    """The limits into the pod and out of it; raises ValueError for what no tbf can do."""
    into, out_of = bandwidth.ingress_rate, bandwidth.egress_rate
    return (
        bucket(into, bandwidth.ingress_burst) if into else None,
        bucket(out_of, bandwidth.egress_burst) if out_of else None,
    )


def ifb_name(host_name: str) -> str:
    """The ifb that belongs to a veth."""
    return f"ifb{sha256(host_name.encode()).hexdigest()[:12]}"


class Shaper:
    """Limits in the network namespace of *netlink*; from one thread at a time."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    def shape(self, host_name: str, bandwidth: Bandwidth) -> None:
        """Give the veth *host_name* exactly these limits, whatever it had.

        Raises ShapingUnavailable, NetlinkError (`absent`: no such veth), ValueError.
        """
        ingress, egress = buckets(bandwidth)
        veth = self._link(host_name)
        if ingress:
            self._make("the qdisc tbf", replace_tbf(veth.index, ingress))
        else:
            self._drop(veth.index, ROOT, ROOT_HANDLE)
        if egress:
            self._limit_egress(veth, egress)
        else:
            self._drop_egress(veth)

    def unshape(self, host_name: str) -> None:
        """Take away the limits of a veth, be it there or gone; raises NetlinkError."""
        veth = self._find(host_name)
        if veth:
            self._drop(veth.index, ROOT, ROOT_HANDLE)
            self._drop_egress(veth)
        else:
            self._delete_link(ifb_name(host_name))

    def observe(self, host_name: str) -> tuple[Bucket | None, Bucket | None]:
        """The buckets in force into the pod and out of it; raises NetlinkError."""
        veth, ifb = self._link(host_name), self._find(ifb_name(host_name))
        parsed = [parse_qdisc(payload) for _, payload in self._netlink.dump(list_qdiscs())]
        found = {(index, parent): tbf for index, parent, tbf in parsed}
        ingress = found.get((veth.index, ROOT))
        if ifb is None or not ifb.up or (veth.index, INGRESS) not in found:
            return ingress, None
        return ingress, found.get((ifb.index, ROOT))

    def sweep(self, alive: Callable[[], Collection[str]]) -> list[str]:
        """Delete our ifbs but for those of the veths *alive*; returns their names.

        A veth that is there all the same loses its limits: it is never left with a redirection
        to an ifb that is gone, which lets nothing through.  *alive* is asked after the ifbs were
        listed: one made since then is not looked at.
        Raises NetlinkError, DumpInterrupted.
        """
        links = [rtnl.parse_link(payload) for _, payload in self._netlink.dump(rtnl.get_link())]
        ours = {link.name for link in links if (link.kind, link.group) == ("ifb", LIMIT_GROUP)}
        stale = sorted(ours - {ifb_name(name) for name in alive()}) if ours else []
        owners = {ifb_name(link.name): link.name for link in links} if stale else {}
        for name in stale:
            if name in owners:
                self.unshape(owners[name])
            else:
                self._delete_link(name)
        return stale

    def _limit_egress(self, veth: rtnl.Link, limit: Bucket) -> None:
        name = ifb_name(veth.name)
        self._make("ifb devices", new_ifb(name, veth.mtu, LIMIT_GROUP), lambda exc: exc.exists)
        ifb = self._link(name)
        self._make("the qdisc tbf", replace_tbf(ifb.index, limit))
        # A redirection that is there may lead to an ifb that was deleted: made anew.
        self._drop(veth.index, INGRESS, INGRESS_HANDLE)
        self._make("the qdisc ingress", new_ingress(veth.index))
        self._make("the filter u32 or the action mirred", redirect(veth.index, ifb.index))

    def _drop_egress(self, veth: rtnl.Link) -> None:
        self._drop(veth.index, INGRESS, INGRESS_HANDLE)
        self._delete_link(ifb_name(veth.name))

    def _make(
        self,
        what: str,
        request: bytes,
        tolerate: Callable[[NetlinkError], bool] = lambda _: False,
    ) -> None:
        try:
            self._netlink.transact([request], tolerate=tolerate)
        except NetlinkError as exc:
            # ENODEV, not these, is what a missing interface gives.
            if exc.errno in (errno.ENOENT, errno.EOPNOTSUPP):
                raise ShapingUnavailable(f"this kernel has not got {what}: {exc}") from exc
            raise

    def _drop(self, index: int, parent: int, handle: int) -> None:
        # ENOENT: no qdisc there; EINVAL: one that is not ours, by its handle.
        absent = (errno.ENOENT, errno.EINVAL)
        self._netlink.transact(
            [delete_qdisc(index, parent, handle)], tolerate=lambda exc: exc.errno in absent
        )

    def _delete_link(self, name: str) -> None:
        self._netlink.transact([rtnl.delete_link(name)], tolerate=lambda exc: exc.absent)

    def _link(self, name: str) -> rtnl.Link:
        return rtnl.parse_link(self._netlink.get(rtnl.get_link(name=name)))

    def _find(self, name: str) -> rtnl.Link | None:
        try:
            return self._link(name)
        except NetlinkError as exc:
            if exc.absent:
                return None
            raise
