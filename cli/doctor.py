"""`isthmus doctor`: look at everything that could keep a container off the network."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.answers import (
    Exit,
    Problem,
    Unreachable,
    json_option,
    leave,
    print_json,
    socket_option,
)
from cli.asking import Reading, ask_agent, read_attachments
from cli.findings import Finding, Severity
from cli.install import place_options
from cli.places import Places
from cli.placing import digest_of, read_manifest

if TYPE_CHECKING:
    from dataplane.firewall import Firewall

_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/conf/all/rp_filter",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
)
_REFERENCE_STATE = Path("/var/lib/cni/networks")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_COLORS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


@click.command()
@place_options
@socket_option
@json_option
def doctor(socket: str, as_json: bool, **directories: Path) -> None:
    """Find what keeps containers off the network.

    Each finding says why it matters and how to mend it.  Nothing is changed.
    Exit status 1 when there is an error among the findings.
    """
    findings = examine(Places(**directories), socket)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            _say(finding)
        click.echo(summary(findings))
    has_error = any(finding.severity is Severity.ERROR for finding in findings)
    leave(Exit.PROBLEM if has_error else Exit.FINE)


def examine(places: Places, socket: str) -> list[Finding]:
    """Every finding, the gravest first."""
    from cli.judge_files import networks

    found, findings = networks(_conf_files(places))
    parts: Sequence[Callable[[], list[Finding]]] = (
        lambda: _files(places, found),
        lambda: _agent(places, socket, found),
        lambda: _host(found, attached=len(_attachments(places, socket).attachments)),
    )
    for part in parts:
        findings += part()
    return sorted(findings, key=lambda finding: list(Severity).index(finding.severity))


def summary(findings: Sequence[Finding]) -> str:
    counts = {
        severity: sum(finding.severity is severity for finding in findings) for severity in Severity
    }
    said = [f"{count} of severity {severity}" for severity, count in counts.items() if count]
    return f"Findings: {', '.join(said)}." if said else "Nothing is in the way."


def _say(finding: Finding) -> None:
    label = click.style(f"{finding.severity.value:<8}", fg=_COLORS[finding.severity], bold=True)
    click.echo(f"{label} {finding.what}")
    click.echo(f"         why:  {finding.why}")
    click.echo(f"         mend: {finding.mend}")


def _conf_files(places: Places) -> list[Any]:
    from cli.judge_files import ConfFile

    directory = places.real(places.conf_dir)
    if not directory.is_dir():
        return []
    return [
        ConfFile(path.name, path.read_bytes()) for path in directory.iterdir() if path.is_file()
    ]


def _files(places: Places, found: Sequence[Any]) -> list[Finding]:
    from agent.boot import machine_id
    from cli.judge_files import judge_binaries, judge_leftovers, judge_standalone
    from cli.leftovers import is_used_bridge
    from dataplane.inspect import observe_network

    plugins = places.real(places.bin_dir)
    recorded = {
        Path(placed.path).name: placed.sha256
        for placed in read_manifest(places.manifest).files
        if Path(placed.path).parent == places.bin_dir
    }
    present = {
        path.name: (digest_of(path) or "") if path.name in recorded else ""
        for path in (plugins.iterdir() if plugins.is_dir() else ())
        if path.is_file() and os.access(path, os.X_OK)
    }
    reference = [
        path.name
        for path in (_REFERENCE_STATE.iterdir() if _REFERENCE_STATE.is_dir() else ())
        if path.is_dir()
        and any(one.name[:1].isdigit() or ":" in one.name for one in path.iterdir())
    ]
    links, seed = observe_network().links, machine_id()
    own_bridges = {network.bridge for network in found} | {
        link.name for link in links if is_used_bridge(link, links, seed=seed)
    }
    program = places.program_dir / "isthmus"
    return (
        judge_binaries(found, present, recorded)
        + judge_standalone(found, program, is_there=places.real(program).exists())
        + judge_leftovers([link.name for link in links], reference, own_bridges)
    )


def _agent(places: Places, socket: str, found: Sequence[Any]) -> list[Finding]:
    from cli.judge_agent import judge_agent, judge_boot, judge_spool
    from cli.judge_announcing import judge_announcing
    from cli.judge_routing import judge_pools, judge_routing
    from dataplane.inspect import observe_network

    status: dict[str, Any] | None = None
    away = ""
    try:
        status = ask_agent(socket, {"op": "status"})["status"]
    except (Unreachable, Problem) as exc:
        away = exc.message.partition(";")[0]
    state = places.real(places.state_dir)
    entries = len(list((state / "spool").glob("*.del")))
    store = state / "isthmus.db"
    age = time.time() - store.stat().st_mtime if store.exists() else None
    records = _attachments(places, socket).attachments
    return (
        judge_agent(status, away, found)
        + judge_spool(entries, agent_runs=status is not None)
        + judge_boot(records, _BOOT_ID.read_text().strip(), store_age_s=age)
        + judge_routing((status or {}).get("mesh"), observe_network().links)
        + judge_pools((status or {}).get("cluster"), (status or {}).get("mesh"))
        + judge_announcing((status or {}).get("announcing"))
    )


def _services(firewall: "Firewall") -> list[Finding]:
    from cli.judge_services import judge_services
    from dataplane import kube_proxy
    from dataplane.nft.elements import Elements
    from proxy.tables import TABLE

    with Elements() as elements:
        if not any(elements.rules(family, TABLE) for family in kube_proxy.FAMILIES):
            return []
        return judge_services(firewall, kube_proxy.look(elements))


def _attachments(places: Places, socket: str) -> Reading:
    store = places.real(places.state_dir) / "isthmus.db"
    try:
        return read_attachments(socket, str(store), quiet=True)
    except (Unreachable, Problem):
        return Reading(source="none")


def _host(found: Sequence[Any], *, attached: int) -> list[Finding]:
    from cli.findings import warning
    from cli.judge_host import (
        judge_bridges,
        judge_default_routes,
        judge_firewall,
        judge_kernel,
        judge_subnets,
        judge_sysctls,
    )
    from cni.tables import skeleton
    from dataplane import inspect
    from dataplane.errors import DataplaneError
    from dataplane.features import find_shortcomings
    from dataplane.firewall import observe_firewall
    from masquerade.names import SKELETON as MASQUERADE

    network = inspect.observe_network()
    findings = judge_subnets(found, network)
    findings += judge_sysctls(
        {name: inspect.read_sysctl(name) for name in _SYSCTLS},
        found,
        writable=inspect.sysctls_are_writable(),
        attached=attached,
    )
    findings += judge_bridges(found, network) + judge_default_routes(network)
    firewall = observe_firewall()
    findings += judge_firewall(firewall, found) + _services(firewall)
    try:
        tables = skeleton() + MASQUERADE.script()
        findings += judge_kernel(find_shortcomings(tables), firewall)
    except DataplaneError as exc:
        findings.append(warning(str(exc), "what this kernel lacks is not known", "run as root"))
    return findings
