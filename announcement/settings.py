"""What an operator can set: apart, since every command reads configurations."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """*interfaces*: on which to answer, none: on those that have an address of the node.

    *port*: of heartbeats (UDP) and of the keys for them (TCP); the same on all nodes.
    """

    interfaces: tuple[str, ...] = ()
    port: int = 9479
