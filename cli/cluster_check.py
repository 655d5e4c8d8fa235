"""What ipamd finds wrong in the cluster, and the mending of it."""

from ipaddress import ip_network
from typing import Any

import click

from cli.answers import Problem
from cli.cluster import LONG_S, Cluster


def check_cluster(cluster: Cluster, *, fix: bool, quiet: bool) -> list[dict[str, Any]]:
    """What is wrong; with *fix*, what still is after what can be mended was."""
    findings = _findings(cluster)
    mendable = [finding for finding in findings if finding["mend"]]
    if fix and mendable:
        for finding in mendable:
            click.echo(
                f"will {finding['mend']} ({finding['subject']}: {finding['text']})", err=quiet
            )
        for finding in mendable:
            _mend(cluster, finding, quiet=quiet)
        findings = _findings(cluster)
    if not quiet:
        for finding in findings:
            click.echo(f"{finding['kind']}: {finding['subject']}: {finding['text']}")
    return findings


def release_block(cluster: Cluster, cidr: str) -> None:
    """Free block *cidr* as it is now.  Raises Problem."""
    try:
        ip_network(cidr)
    except ValueError as exc:
        raise Problem(f"{exc}; a block is its first address and its length") from exc
    row = next((row for row in cluster.show("blocks") if row["cidr"] == cidr), None)
    if row is None:
        raise Problem(f"no node has a block {cidr}: isthmus ipam blocks shows them")
    _release(cluster, cidr, row["mod_revision"])


def _findings(cluster: Cluster) -> list[dict[str, Any]]:
    from ipam.rpc import ipamd_pb2 as pb

    return [
        {
            "kind": finding.kind,
            "subject": finding.subject,
            "text": finding.text,
            "mend": finding.mend,
            "mod_revision": finding.mod_revision,
        }
        for finding in cluster.ask("Check", pb.CheckRequest(), within_s=LONG_S).findings
    ]


def _mend(cluster: Cluster, finding: dict[str, Any], *, quiet: bool) -> None:
    """Carry out what a finding offers: a release at the revision that was looked at."""
    from ipam.rpc import ipamd_pb2 as pb

    what, _, subject = finding["mend"].partition(" ")
    revision = finding["mod_revision"]
    try:
        if what == "release":
            _release(cluster, subject, revision)
        elif what == "forget":
            request = pb.ReleaseMirrorRequest(node=subject, mod_revision=revision)
            cluster.ask("ReleaseMirror", request)
        else:
            raise Problem(f"this program is older than ipamd and cannot {finding['mend']}")
    except Problem as exc:
        click.echo(f"not done: {finding['mend']}: {exc.message}", err=True)
    else:
        click.echo(f"done: {finding['mend']}", err=quiet)


def _release(cluster: Cluster, cidr: str, mod_revision: int) -> None:
    from ipam.rpc import ipamd_pb2 as pb

    cluster.ask("ReleaseBlock", pb.ReleaseBlockRequest(cidr=cidr, mod_revision=mod_revision))
