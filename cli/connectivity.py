"""`isthmus connectivity test`: does the cluster's network do what Kubernetes promises?"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.answers import Exit, Problem, json_option, leave, note, print_json, print_table

if TYPE_CHECKING:
    from connectivity.campaign import API, Options
    from connectivity.model import Outcome
    from connectivity.plan import Row

_PROGRAM = "/opt/isthmus/isthmus"


@click.group()
def connectivity() -> None:
    """Test the network of a cluster, with pods of its own."""


def _host_and_port(
    ctx: click.Context, param: click.Parameter, value: str
) -> tuple[str, int] | None:
    if value == "none":
        return None
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{value!r}: say HOST:PORT, as 192.0.2.1:443, or none")
    return host.strip("[]"), int(port)


@connectivity.command()
@click.option("--kubeconfig", envvar="KUBECONFIG", default="", show_default="~/.kube/config")
@click.option("--namespace", default="isthmus-connectivity", show_default=True,
              help="Made for the test, and removed.")  # fmt: skip
@click.option("--agents", default="isthmus", show_default=True,
              help="The namespace of the agents, whose image the test's pods run.")  # fmt: skip
@click.option("--image", default="", help="Run the test's pods from this image of isthmus.")
@click.option("--outside", default="none", show_default=True, callback=_host_and_port,
              help="HOST:PORT beyond the cluster that pods should reach.")  # fmt: skip
@click.option("--patience", type=click.FloatRange(1), default=180.0, show_default=True,
              help="Seconds to wait for pods to start, and for each stage after it.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the test's namespace for a look.")
@json_option
def test(kubeconfig: str, as_json: bool, **chosen: Any) -> None:
    """Try every path between pods, nodes and hostPorts, in every family that pods have.

    The network model's three rules are looked at: pods reach all pods without NAT, nodes reach
    all pods, and a pod is seen by the address it sees itself.  Also: large packets, the path's
    MTU, and many connections at once.  Each node is tried from itself and from a few others.

    Exit status 1 when something failed; what to look at is said beside it.
    """
    import asyncio

    from connectivity.errors import ConnectivityError
    from connectivity.plan import summary

    path = Path(kubeconfig or Path.home() / ".kube/config")
    try:
        rows = summary(asyncio.run(_run(path, chosen)))
    except ConnectivityError as exc:
        raise Problem(str(exc)) from exc
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        _print(rows, chosen["outside"])
    leave(Exit.PROBLEM if any(row.failed for row in rows) else Exit.FINE)


async def _run(kubeconfig: Path, chosen: Mapping[str, Any]) -> "tuple[Outcome, ...]":
    from connectivity.campaign import Campaign
    from connectivity.kubernetes import connected

    async with connected(kubeconfig) as api:
        return await Campaign(api, await _options(api, chosen), note).run()


async def _options(api: "API", chosen: Mapping[str, Any]) -> "Options":
    from connectivity.campaign import Options, agents_program
    from connectivity.pods import Program

    image = chosen["image"]
    return Options(
        namespace=chosen["namespace"],
        program=Program(image, (_PROGRAM,))
        if image
        else await agents_program(api, chosen["agents"]),
        outside=chosen["outside"],
        patience_s=chosen["patience"],
        is_kept=chosen["keep"],
    )


def _print(rows: "tuple[Row, ...]", outside: tuple[str, int] | None) -> None:
    print_table(
        ("Path", "Family", "Trial", "Went well", "Slowest"),
        (
            (
                row.path,
                row.family,
                row.trial,
                f"{row.tried - row.failed} of {row.tried}",
                f"{row.slowest_s * 1e3:.0f} ms",
            )
            for row in rows
        ),
        empty="Nothing was tried.",
    )
    for row in rows:
        if row.failed:
            click.echo(f"\n{row.path}, {row.family}, {row.trial}: {row.example}")
            click.echo(f"  look at: {row.advice}")
    if outside is None:
        click.echo("\nNot tried: the way out of the cluster (name a target by --outside).")
    failed = sum(row.failed for row in rows)
    click.echo(
        f"\n{failed} of {sum(row.tried for row in rows)} failed." if failed else "\nAll well."
    )


@connectivity.command(hidden=True)
@click.option("--port", type=click.IntRange(1, 65535), required=True)
def serve(port: int) -> None:
    """Answer the test's clients on PORT until ended."""
    import asyncio

    from connectivity.probe import serve as answer

    asyncio.run(answer(port))


@connectivity.command(hidden=True)
@click.option("--node", required=True)
@click.option("--targets", required=True)
def probe(node: str, targets: str) -> None:
    """Try TARGETS, and print a line of JSON for each outcome."""
    import asyncio

    from connectivity.model import Target
    from connectivity.probe import probe as attempt

    try:
        wanted = [Target.from_json(each) for each in json.loads(targets)]
    except (ValueError, KeyError, TypeError) as exc:
        raise click.BadParameter(f"targets: {exc}") from exc
    asyncio.run(attempt(node, wanted, lambda found: print(json.dumps(found.to_json()), flush=True)))
