"""What an operator can set: apart, since every command reads configurations."""

from dataclasses import dataclass

from net.address import IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can set beside each pool's own switch.

    Pods keep their address towards *non_masquerade_cidrs*, and without *masquerade_link_local*
    towards link-local ones.
    """

    non_masquerade_cidrs: tuple[IPNetwork, ...] = ()
    masquerade_link_local: bool = False
