"""The `ipam` section: ranges, routes and reservations, or the name of another plugin."""

from dataclasses import dataclass

from cni.document import Section, parse_block
from cni.errors import CNIError, ErrorCode
from cni.result import parse_routes
from cni.versions import at_least
from dataplane.model import Route
from ipam.errors import InvalidRange
from ipam.ranges import Range, RangeSet, check_disjoint, senseless
from net.address import IPNetwork

OUR_TYPES = ("isthmus", "isthmus-ipam")


@dataclass(frozen=True, slots=True, kw_only=True)
class IPAMConf:
    """Where addresses come from.

    *delegate* is the type of a plugin that is not ours, or empty; of its section nothing else
    is read here.  An address is given from each of *range_sets*, never one of *reservations*.
    *resolv_conf* is the path of a file from which the result's dns is taken, or empty.

    With *from_blocks* there are no range sets here: they are the node's blocks of *pools* when
    an address is asked for, of the default pools where none is named.
    """

    delegate: str = ""
    from_blocks: bool = False
    pools: tuple[str, ...] = ()
    range_sets: tuple[RangeSet, ...] = ()
    routes: tuple[Route, ...] = ()
    reservations: tuple[IPNetwork, ...] = ()
    resolv_conf: str = ""

    @property
    def has_ipv6(self) -> bool:
        return any(ranges.version == 6 for ranges in self.range_sets)


def delegate_type(ipam: Section) -> str:
    """The IPAM type where it is not ours, else nothing; it must be a plain file name."""
    name = ipam.text("type")
    if "/" in name or name in (".", ".."):
        ipam.refuse("type", "the name of a plugin, without a path")
    return "" if name in OUR_TYPES else name


def parse_ipam(ipam: Section, runtime: Section, version: str) -> IPAMConf:
    """Read our own section and the ipRanges capability, whose range sets come first.

    Keys and precedence are those of the reference host-local: one range written directly in
    the section counts as the first of `ranges`.
    """
    range_sets = [_range_set(spans) for spans in runtime.nested("ipRanges")]
    if ipam.raw("subnet") is not None:
        range_sets.append(_range_set((ipam,)))
    range_sets += [_range_set(spans) for spans in ipam.nested("ranges")]
    pools = _pools(ipam)
    if pools and range_sets:
        raise CNIError(
            ErrorCode.INVALID_CONFIG,
            "cannot set pool and ranges at the same time",
            "addresses come from a pool of the cluster, or from what is written here",
        )
    try:
        check_disjoint(range_sets)
    except InvalidRange as exc:
        raise CNIError(ErrorCode.INVALID_CONFIG, "range sets overlap", str(exc)) from exc
    _check_count(range_sets, version)
    return IPAMConf(
        from_blocks=not range_sets,
        pools=pools,
        range_sets=tuple(range_sets),
        routes=parse_routes(ipam.sections("routes")),
        reservations=_reservations(ipam),
        resolv_conf=ipam.text("resolvConf"),
    )


def _pools(ipam: Section) -> tuple[str, ...]:
    """One pool by name, or several: a pool is of one family."""
    if isinstance(ipam.raw("pool"), list):
        pools = ipam.texts("pool")
    else:
        pools = (ipam.text("pool"),) if ipam.raw("pool") is not None else ()
    if len(set(pools)) < len(pools) or "" in pools:
        ipam.refuse("pool", "the name of a pool, or a list of different ones")
    return pools


def _range_set(spans: tuple[Section, ...]) -> RangeSet:
    try:
        return RangeSet(tuple(_range(span) for span in spans))
    except InvalidRange as exc:
        raise CNIError(ErrorCode.INVALID_CONFIG, "invalid range set", str(exc)) from exc


def _range(span: Section) -> Range:
    subnet = span.network("subnet", strict=True)
    if subnet is None:
        span.refuse("subnet", "a network such as 10.1.0.0/16 or fd00:1::/64")
    if fault := senseless(subnet):
        raise CNIError(
            ErrorCode.INVALID_CONFIG, f"invalid range at {span.name('subnet')}", f"subnet {fault}"
        )
    try:
        return Range.of(
            subnet,
            start=span.address("rangeStart"),
            end=span.address("rangeEnd"),
            gateway=span.address("gateway"),
        )
    except InvalidRange as exc:
        raise CNIError(
            ErrorCode.INVALID_CONFIG, f"invalid range at {span.name('subnet')}", str(exc)
        ) from exc


def _check_count(range_sets: list[RangeSet], version: str) -> None:
    families = [ranges.version for ranges in range_sets]
    if len(set(families)) < len(families) and not at_least(version, "0.3.0"):
        raise CNIError(
            ErrorCode.INVALID_CONFIG,
            f"CNI version {version} does not support more than 1 address per family",
            f"{len(families)} range sets are configured",
        )


def _reservations(ipam: Section) -> tuple[IPNetwork, ...]:
    blocks = [parse_block(text) for text in ipam.texts("reservations")]
    if not all(blocks):
        ipam.refuse("reservations", "a list of addresses or networks without host bits")
    return tuple(block for block in blocks if block)
