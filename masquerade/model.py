"""What the translation is planned from: frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ipam.calls import PoolRow, TableRow
from net.address import IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What ipamd told: the pools, none where nothing was told yet, and who has which block."""

    pools: tuple[PoolRow, ...] = ()
    rows: Mapping[IPNetwork, TableRow] = field(default_factory=lambda: MappingProxyType({}))
