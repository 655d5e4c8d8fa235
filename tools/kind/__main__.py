"""The command: python -m tools.kind up | down | able | run -- COMMAND | load ARCHIVE."""

import os
import subprocess
import sys
from pathlib import Path

import click

from tools.kind import cluster, engine, lock, way
from tools.kind.node import Containerd
from tools.kind.places import KUBECONFIG
from tools.kind.progress import KindError, say


@click.group()
def kind() -> None:
    """Bring up a real Kubernetes cluster of three nodes, use it, take it down.

    One at a time: commands wait for each other.
    """


@kind.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    envvar="ISTHMUS_KIND_CONFIG",
    default=way.DEFAULT_CONFIG,
    help="kind's configuration of the cluster.",
)
@click.option(
    "--containerd",
    type=click.Choice(list(Containerd)),
    default=Containerd.BUILT,
    show_default=True,
    help="The nodes' containerd, where they are built here.",
)
def up(config: Path, containerd: str) -> None:
    """Bring the cluster up; nothing happens where it is."""
    with lock.held():
        way.bring_up(config, Containerd(containerd))
    say("the cluster is up; `python -m tools.kind run -- kubectl get nodes` asks it")


@kind.command()
def down() -> None:
    """Take the cluster down; of what it was, only downloads and images in build/ are left."""
    with lock.held():
        if engine.running() is not None or cluster.COMPLETE.exists():
            cluster.delete(way.current())
        engine.stop()
    say("the cluster is down")


@kind.command()
def able() -> None:
    """Say why this machine cannot have a cluster, and exit with 1; or with 0 where it can."""
    with lock.held():
        if why := way.obstacle():
            click.echo(why)
            sys.exit(1)


@kind.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...]) -> None:
    """Run COMMAND where the cluster is, with nobody else using it meanwhile."""
    with lock.held():
        own = way.current()
        environment = {**os.environ, **own.environment, "KUBECONFIG": str(KUBECONFIG)}
        sys.exit(subprocess.run([*own.prefix, *command], env=environment, check=False).returncode)


@kind.command()
@click.argument(
    "archives",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
def load(archives: tuple[Path, ...]) -> None:
    """Put the images of docker-archives into every node."""
    with lock.held():
        for archive in archives:
            cluster.load(way.current(), archive)


def main() -> None:
    try:
        kind(prog_name="python -m tools.kind")
    except KindError as error:
        sys.exit(f"kind: {error}")


if __name__ == "__main__":
    main()
