"""Who talks to whom in a self-test, along which path, and what came of it.  Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from net.address import IPAddress


class Path(StrEnum):
    """The ways through a cluster's network; the value is what a person reads."""

    POD_SAME_NODE = "pod to pod, same node"
    POD_OTHER_NODE = "pod to pod, other node"
    POD_OWN_NODE = "pod to its node"
    POD_FOREIGN_NODE = "pod to other node"
    NODE_OWN_POD = "node to its pod"
    NODE_FOREIGN_POD = "node to pod on other node"
    NODE_NODE = "node to node"
    HOST_PORT_SAME_NODE = "hostPort, from its node's pods"
    HOST_PORT_OTHER_NODE = "hostPort, from other nodes"
    OUTSIDE = "pod to outside"


class Trial(StrEnum):
    """What is tried along a path; the value is what a person reads."""

    TCP = "tcp"
    UDP = "udp"
    SOURCE = "no NAT"
    BULK = "1 MiB"
    WHOLE_MTU = "whole MTU"
    MANY = "many connections"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A pod that answers: on its own addresses, and its node's, with *host_network*."""

    node: str
    host_network: bool
    addresses: tuple[IPAddress, ...]
    node_addresses: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One address and port to try, and what to try there."""

    path: Path
    address: str
    port: int
    node: str
    trials: tuple[Trial, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Target":
        """Raises KeyError, ValueError for what `to_json` did not make."""
        return cls(
            path=Path(document["path"]),
            address=str(document["address"]),
            port=int(document["port"]),
            node=str(document["node"]),
            trials=tuple(map(Trial, document["trials"])),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one trial from *client_node* gave: *seconds* it took, *failure* "" when it went well."""

    path: Path
    trial: Trial
    client_node: str
    node: str
    address: str
    seconds: float
    failure: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Outcome":
        """Raises KeyError, ValueError for what `to_json` did not make."""
        return cls(
            path=Path(document["path"]),
            trial=Trial(document["trial"]),
            client_node=str(document["client_node"]),
            node=str(document["node"]),
            address=str(document["address"]),
            seconds=float(document["seconds"]),
            failure=str(document["failure"]),
        )
