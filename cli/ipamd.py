"""`isthmus ipamd`: the cluster's address daemon in the foreground."""

import os
import sys
from pathlib import Path

import click

from cli.answers import Exit, leave


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="ipamd's configuration; without it /etc/isthmus/ipamd.toml, if that is there.",
)
def ipamd(config: Path | None) -> None:
    """Run a replica of ipamd, until SIGTERM.

    It gives nodes their blocks of the cluster's pools.  etcd has all of its state but for one
    small file, so any number of replicas may run.
    """
    # Before gRPC is loaded: what its C core says of refused handshakes is no line of our log.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from agent import log as logs
    from agent.notify import Notifier
    from ipam.daemon import main
    from ipam.daemon_config import load
    from net.settings import ConfigError

    try:
        settings = load(config)
    except ConfigError as exc:
        sys.stderr.write(f"{exc}\n")
        leave(Exit.USAGE)
    logs.configure(settings)
    leave(Exit(main(settings, Notifier().tell)))
