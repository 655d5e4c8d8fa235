"""`isthmus connectivity test`: does the cluster's network do what Kubernetes promises?"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cli.answers import Exit, Problem, json_option, leave, note, print_json, print_table
from connectivity.campaign import API, Campaign, Options, agents_program
from connectivity.errors import ConnectivityError, Missing, Refused
from connectivity.model import Outcome, Target
from connectivity.plan import Row, summary
from connectivity.pods import Program
from kube.access import from_kubeconfig
from kube.client import Client
from kube.errors import Conflict, Denied, KubeError, NotFound, Rejected

_PROGRAM = "/opt/isthmus/isthmus"


@click.group()
def connectivity() -> None:
    """Test the network of a cluster, with pods of its own."""


class KubernetesAPI:
    """The API server, as a self-test asks for it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, path: str) -> dict[str, Any]:
        with _translated():
            return await self._client.get(path, dict[str, Any])

    async def text(self, path: str) -> str:
        with _translated():
            return await self._client.text(path)

    async def create(self, path: str, body: Mapping[str, Any]) -> None:
        with _translated():
            await self._client.create(path, body, dict[str, Any])

    async def delete(self, path: str) -> None:
        with _translated():
            await self._client.delete(path)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except NotFound as exc:
        raise Missing(str(exc)) from exc
    except (Denied, Conflict, Rejected) as exc:
        raise Refused(str(exc)) from exc
    except KubeError as exc:
        raise ConnectivityError(str(exc)) from exc


async def _with_api(
    kubeconfig: str, run: Callable[[API], Awaitable[tuple[Outcome, ...]]]
) -> tuple[Outcome, ...]:
    path = Path(kubeconfig or Path.home() / ".kube/config")
    client = Client(lambda: from_kubeconfig(path))
    try:
        return await run(KubernetesAPI(client))
    finally:
        client.close()


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

    async def run(api: API) -> tuple[Outcome, ...]:
        return await Campaign(api, await _options(api, chosen), note).run()

    try:
        rows = summary(asyncio.run(_with_api(kubeconfig, run)))
    except (KubeError, ConnectivityError) as exc:
        raise Problem(str(exc)) from exc
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        _print(rows, chosen["outside"])
    leave(Exit.PROBLEM if any(row.failed for row in rows) else Exit.FINE)


async def _options(api: API, chosen: Mapping[str, Any]) -> Options:
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


def _print(rows: tuple[Row, ...], outside: tuple[str, int] | None) -> None:
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
    from connectivity.probe import serve as answer

    asyncio.run(answer(port))


@connectivity.command(hidden=True)
@click.option("--node", required=True)
@click.option("--targets", required=True)
def probe(node: str, targets: str) -> None:
    """Try TARGETS, and print a line of JSON for each outcome."""
    from connectivity.probe import probe as attempt

    try:
        wanted = [Target.from_json(each) for each in json.loads(targets)]
    except (ValueError, KeyError, TypeError) as exc:
        raise click.BadParameter(f"targets: {exc}") from exc
    asyncio.run(attempt(node, wanted, lambda found: print(json.dumps(found.to_json()), flush=True)))
