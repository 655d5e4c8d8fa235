"""Asking ipamd: where it is, by which certificate, and what its refusals mean for a command."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cli.answers import Problem, Unreachable, configured
from net.settings import endpoints

WHOLE = click.IntRange(-(1 << 31), (1 << 31) - 1)  # as a message has it
_IDENTITY = Path("/etc/isthmus")
_WITHIN_S = 40.0  # ipamd itself gives up after 30
LONG_S = 130.0  # where it does after 120


@dataclass(frozen=True, slots=True)
class Cluster:
    """The ipamd at *endpoints*, asked as whom *identity* (a directory) proves."""

    endpoints: tuple[str, ...]
    identity: Path

    def ask(self, method: str, request: Any, *, within_s: float = _WITHIN_S) -> Any:
        """What one of them answers.  Raises Unreachable, or Problem with the refusal."""
        from ipam.channel import Channels, IpamdAway
        from ipam.errors import IPAMError
        from ipam.kv import KVUnavailable
        from ipam.refusals import NotReady
        from ipam.tls import BadCredentials, TLSFiles

        files = TLSFiles(
            certificate=self.identity / "admin.pem",
            key=self.identity / "admin.key",
            ca=self.identity / "ca.pem",
        )

        async def call() -> Any:
            channels = Channels(self.endpoints, files)
            try:
                return await channels.call(method, request, within_s=within_s)
            finally:
                await channels.close()

        try:
            return asyncio.run(call())
        except BadCredentials as exc:
            raise Problem(f"{exc}; name the administrator's directory by --identity") from exc
        except (IpamdAway, KVUnavailable, NotReady) as exc:
            raise Unreachable(f"ipamd cannot answer: {exc}") from exc
        except IPAMError as exc:
            raise Problem(str(exc)) from exc

    def show(self, what: str, argument: str = "") -> Any:
        """Rows of *what*, as ipamd has them."""
        import json

        from ipam.rpc import ipamd_pb2 as pb

        return json.loads(self.ask("Show", pb.ShowRequest(what=what, argument=argument)).json)


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give *command* the options that say where ipamd is, and who we are there."""
    for option in (
        click.option(
            "--identity",
            type=click.Path(file_okay=False, path_type=Path),
            default=_IDENTITY,
            show_default=True,
            envvar="ISTHMUS_IDENTITY",
            help="Directory of admin.pem, admin.key and ca.pem: an administrator's certificate.",
        ),
        click.option(
            "--ipamd",
            metavar="HOST:PORT[,...]",
            envvar="ISTHMUS_IPAMD",
            help="Where ipamd is; without it what the agent's configuration says.",
        ),
    ):
        command = option(command)
    return command


def find_cluster(ipamd: str | None, identity: Path) -> Cluster | None:
    """The cluster that was named or is configured here; None where there is none."""
    # Before gRPC is loaded: its C core would write beside our messages.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if ipamd is None:
        known = configured().ipamd
        return Cluster(known.endpoints, identity) if known else None
    try:
        return Cluster(endpoints([one.strip() for one in ipamd.split(",")]), identity)
    except ValueError as exc:
        raise click.BadParameter(
            f"{ipamd!r}: give HOST:PORT, as 10.0.0.1:9476; several with commas between, none twice",
            param_hint="--ipamd",
        ) from exc


def need_cluster(ipamd: str | None, identity: Path) -> Cluster:
    """As `find_cluster`.  Raises Problem where there is none."""
    found = find_cluster(ipamd, identity)
    if found is None:
        raise Problem(
            "no ipamd is configured here: name it by --ipamd HOST:PORT, or in the table [ipamd] of "
            "the agent's configuration"
        )
    return found
