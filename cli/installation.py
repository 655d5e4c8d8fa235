"""What `isthmus install` puts on a host, and what it decides about files that are there already.

Everything here is a function of its arguments.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from net.address import IPNetwork


class Care(StrEnum):
    """What becomes of a different file in the way that we did not put there."""

    REPLACE = "replace"  # it is set aside and comes back at uninstall
    REFUSE = "refuse"  # an operator's decision: only with --force
    KEEP = "keep"  # it is the operator's from the day it was put


class Action(StrEnum):
    PUT = "put"
    KEEP = "keep"
    REPLACE = "replace"
    REPLACE_FOREIGN = "replace, what was there is set aside"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One file to be put at *target* (as the installed host sees it)."""

    target: Path
    content: bytes
    mode: int
    care: Care = Care.REPLACE


def decide(
    care: Care, *, wanted: str, present: str | None, recorded: str | None, force: bool
) -> Action:
    """What to do about one file, from the hashes of what is wanted, there, and put by us before."""
    if present is None:
        return Action.PUT
    if present == wanted:
        return Action.KEEP
    match care:
        case Care.KEEP:
            return Action.KEEP
        case Care.REFUSE if present != recorded and not force:
            return Action.REFUSE
    return Action.REPLACE if recorded is not None else Action.REPLACE_FOREIGN


def conflist(template: bytes, subnets: Sequence[IPNetwork], bridge: str | None) -> bytes:
    """The list of *template* with one range set for each of *subnets*, on *bridge* if given."""
    document: dict[str, Any] = json.loads(template)
    plugin: dict[str, Any] = document["plugins"][0]
    if subnets:
        plugin["ipam"]["ranges"] = [[{"subnet": str(subnet)}] for subnet in subnets]
        zero = {4: "0.0.0.0/0", 6: "::/0"}
        families = sorted({subnet.version for subnet in subnets})
        plugin["ipam"]["routes"] = [{"dst": zero[family]} for family in families]
    if bridge:
        plugin["bridge"] = bridge
    return json.dumps(document, indent=2).encode() + b"\n"


def unit(template: bytes, command: Sequence[str], config: Path, state_dir: Path) -> bytes:
    """The systemd unit of *template*, started by *command*."""
    line = " ".join([*command, "--config", str(config)])
    return template.replace(b"@AGENT@", line.encode()).replace(b"@STATE@", bytes(state_dir))


def ipamd_unit(template: bytes, command: Sequence[str], config: Path) -> bytes:
    """The systemd unit of *template*, started by *command*, which may be in somebody's home."""
    line = " ".join([*command, "--config", str(config)]).encode()
    usual = b"/usr/local/bin/isthmus ipamd --config /etc/isthmus/ipamd.toml"
    return template.replace(usual, line).replace(b"ProtectHome=yes", b"ProtectHome=read-only")


def agent_config(template: bytes, state_dir: Path) -> bytes:
    """The example configuration, with *state_dir* set where it is not the default."""
    default = b'#state_dir = "/var/lib/isthmus"\n'
    wanted = f'state_dir = "{state_dir}"\n'.encode()
    return template if default == b"#" + wanted else template.replace(default, wanted)
