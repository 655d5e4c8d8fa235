"""What an operator can set: apart, since every command reads configurations."""

from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """AUTO: direct where the other node is on one of our links, through VXLAN elsewhere."""

    DIRECT = "direct"
    VXLAN = "vxlan"
    AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator can set; the same on all nodes but for *mtu*.

    *vni* and *port* are of VXLAN; *device* is the beginning of its links' names; *mtu* is of
    pods, 0: by that of the link that has our address.
    """

    mode: Mode = Mode.AUTO
    vni: int = 4177
    port: int = 4789
    device: str = "vxisthmus"
    mtu: int = 0
