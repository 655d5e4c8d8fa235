"""Judgements on what lies on disk: network lists, plugins, and what others left.

Everything here is a function of its arguments.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.findings import Finding, error, info, warning
from cni.config import parse
from cni.environment import Call, Verb
from cni.errors import CNIError
from net.address import IPNetwork

OUR_TYPES = ("isthmus", "isthmus-ipam")
_LOADED = (".conf", ".conflist", ".json")
_FOREIGN_LINKS = {
    "cni0": "the reference bridge plugin or flannel",
    "cbr0": "kubenet",
    "flannel.1": "flannel",
    "flannel-v6.1": "flannel",
    "kube-bridge": "kube-router",
    "weave": "Weave Net",
    "cilium_host": "Cilium",
    "vxlan.calico": "Calico",
}


@dataclass(frozen=True, slots=True)
class ConfFile:
    """One file of the directory of network lists."""

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network of ours as its list says it; *plugins* are all types it calls."""

    file: str
    name: str
    subnets: tuple[IPNetwork, ...] = ()
    bridge: str = ""
    standalone: bool = False
    plugins: tuple[str, ...] = ()


def networks(files: Sequence[ConfFile]) -> tuple[list[Network], list[Finding]]:
    """Our networks among *files*, and what is wrong with the files."""
    found: list[Network] = []
    findings: list[Finding] = []
    loaded = sorted(
        (file for file in files if file.name.endswith(_LOADED)), key=lambda file: file.name
    )
    for file in loaded:
        try:
            document, plugins = _read(file.content)
        except ValueError as exc:
            findings.append(_unreadable(file, str(exc), is_first=file is loaded[0]))
            continue
        for plugin in plugins:
            if plugin.get("type") == "isthmus":
                network, faults = _network(file, document, plugin, plugins)
                findings += faults
                found += [network] if network else []
    return found, findings + _order(loaded, found)


def _read(content: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The document and its plugins.  Raises ValueError saying what is wrong."""
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    plugins = document.get("plugins", [document] if "type" in document else None)
    if not isinstance(plugins, list) or not plugins:
        raise ValueError('it has neither "plugins" nor a "type"')
    if not all(isinstance(plugin, dict) and plugin.get("type") for plugin in plugins):
        raise ValueError('a plugin of it has no "type"')
    if not document.get("name"):
        raise ValueError('it has no "name"')
    return document, plugins


def _unreadable(file: ConfFile, fault: str, *, is_first: bool) -> Finding:
    what = f"{file.name} is no valid network list: {fault}"
    mend = f"mend or remove {file.name}"
    if is_first:
        return error(what, "runtimes take the first file and do not skip a broken one", mend)
    return warning(what, "it is not the first file, but may become it", mend)


def _network(
    file: ConfFile,
    document: Mapping[str, Any],
    plugin: Mapping[str, Any],
    plugins: Sequence[Mapping[str, Any]],
) -> tuple[Network | None, list[Finding]]:
    """Read one plugin of ours as an ADD would be given it."""
    versions = [document.get("cniVersion"), *document.get("cniVersions", [])]
    newest = max((version for version in versions if isinstance(version, str)), default="")
    stdin = json.dumps({**plugin, "name": document["name"], "cniVersion": newest}).encode()
    try:
        conf = parse(stdin, Call(command=Verb.ADD))
    except CNIError as exc:
        return None, [
            error(
                f"{file.name} is not a configuration that isthmus takes: {exc}",
                "every ADD on this network fails with this message",
                f"correct {file.name}",
            )
        ]
    types = [str(one["type"]) for one in plugins]
    ranges = conf.ipam.range_sets if conf.ipam else ()
    network = Network(
        file=file.name,
        name=conf.name,
        subnets=tuple(span.subnet for one in ranges for span in one),
        bridge=conf.link.bridge if conf.link.mode == "bridge" else "",
        standalone=conf.standalone,
        plugins=(*types, conf.delegate) if conf.delegate else tuple(types),
    )
    return network, []


def _order(loaded: Sequence[ConfFile], found: Sequence[Network]) -> list[Finding]:
    if not found:
        return [
            error(
                "no network list calls isthmus",
                "runtimes do not know of it",
                "isthmus install",
            )
        ]
    first = loaded[0].name
    if first == found[0].file:
        return []
    return [
        error(
            f"{first} sorts before {found[0].file}",
            "containerd and CRI-O use the first file alone, so containers do not get isthmus",
            f"remove {first}, or rename one of them so that {found[0].file} is first",
        )
    ]


def judge_binaries(
    networks: Iterable[Network], present: Mapping[str, str], recorded: Mapping[str, str]
) -> list[Finding]:
    """Plugins that are called but missing, or ours but not what was installed.

    *present* and *recorded* are hashes by name of plugin.
    """
    needed = sorted({plugin for network in networks for plugin in network.plugins} | {"isthmus"})
    findings = [
        error(
            f"the plugin {name} is not in the directory of plugins",
            "every ADD of a network that calls it fails",
            "isthmus install" if name in OUR_TYPES else f"install the plugin {name}",
        )
        for name in needed
        if name not in present
    ]
    return findings + [
        warning(
            f"the plugin {name} is not the one that was installed",
            "launcher and agent may be of different versions",
            "isthmus install",
        )
        for name, sha256 in recorded.items()
        if name in present and present[name] != sha256
    ]


def judge_standalone(
    networks: Iterable[Network], program: Path, *, is_there: bool
) -> list[Finding]:
    """Networks that are to work without an agent, but have no program to do it."""
    return [
        error(
            f"{network.file} says standalone, and there is no {program}",
            "without an agent every verb on this network fails",
            "make dist, then isthmus install",
        )
        for network in networks
        if network.standalone and not is_there
    ]


def judge_leftovers(
    links: Iterable[str], reference_networks: Iterable[str], own_bridges: Collection[str]
) -> list[Finding]:
    """What other plugins left: links by their names, and addresses of host-local."""
    findings = [
        warning(
            f"the link {name} is there: it looks like one of {owner}",
            "its addresses and routes may be in the way of ours",
            f"when {owner} is no longer used here: ip link delete {name}",
        )
        for name, owner in _FOREIGN_LINKS.items()
        if name in set(links) and name not in own_bridges
    ]
    if calico := sorted(name for name in links if name.startswith("cali")):
        findings.append(
            warning(
                f"{len(calico)} links of Calico are there ({calico[0]} …)",
                "its pods keep their old addresses, and its rules stay",
                "restart those pods, then delete the links",
            )
        )
    return findings + [
        info(
            f"/var/lib/cni/networks/{name} has addresses that host-local gave",
            "isthmus looks at them where `host_local` in agent.toml says so: else an address in "
            "both is given twice",
            "stop the containers of that network, then remove the directory",
        )
        for name in sorted(reference_networks)
    ]
