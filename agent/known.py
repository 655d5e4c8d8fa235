"""What Kubernetes said last, on disk: an agent starts without the API server, too."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ipam.tls import BadCredentials, write_private

Annotations = Mapping[str, str]

NONE: Annotations = MappingProxyType({})

log = logging.getLogger(__name__)


def _nothing() -> Annotations:
    return NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPod:
    """*uids*: the API's, and of a static pod the kubelet's, which the runtime is told."""

    uids: tuple[str, ...] = ()
    annotations: Annotations = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNode:
    """Our Node; *addresses* are its internal ones."""

    uid: str = ""
    labels: Mapping[str, str] = field(default_factory=_nothing)
    addresses: tuple[str, ...] = ()
    pod_cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """*endpoints* and *enroll*: where ipamd is, as HOST:PORT; *pods* by namespace/name."""

    node: KnownNode = KnownNode()
    endpoints: tuple[str, ...] = ()
    enroll: tuple[str, ...] = ()
    pods: Mapping[str, KnownPod] = field(default_factory=dict)
    namespaces: Mapping[str, Annotations] = field(default_factory=dict)


def load(path: Path) -> Known:
    """What was kept, or nothing where there is no such file, or one that cannot be read."""
    try:
        return _read(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return Known()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        log.warning(
            "cannot be read, and is begun anew", extra={"path": str(path), "error": str(exc)}
        )
        return Known()


def keep(path: Path, known: Known) -> None:
    """Make *known* durable.  Raises OSError."""
    document = {
        "node": {
            "uid": known.node.uid,
            "labels": dict(known.node.labels),
            "addresses": known.node.addresses,
            "pod_cidrs": known.node.pod_cidrs,
        },
        "endpoints": known.endpoints,
        "enroll": known.enroll,
        "pods": {
            name: {"uids": pod.uids, "annotations": dict(pod.annotations)}
            for name, pod in known.pods.items()
        },
        "namespaces": {name: dict(said) for name, said in known.namespaces.items()},
    }
    try:
        write_private(path, json.dumps(document).encode())
    except BadCredentials as exc:
        raise OSError(str(exc)) from exc


def _read(document: dict[str, Any]) -> Known:
    node = document["node"]
    return Known(
        node=KnownNode(
            uid=str(node["uid"]),
            labels=_texts(node["labels"]),
            addresses=tuple(map(str, node["addresses"])),
            pod_cidrs=tuple(map(str, node["pod_cidrs"])),
        ),
        endpoints=tuple(map(str, document["endpoints"])),
        enroll=tuple(map(str, document["enroll"])),
        pods={
            name: KnownPod(
                uids=tuple(map(str, pod["uids"])), annotations=_texts(pod["annotations"])
            )
            for name, pod in document["pods"].items()
        },
        namespaces={name: _texts(said) for name, said in document["namespaces"].items()},
    )


def _texts(value: dict[str, Any]) -> Annotations:
    return {str(name): str(text) for name, text in value.items()}
