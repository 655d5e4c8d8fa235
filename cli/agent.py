"""`isthmus agent`: the node daemon in the foreground."""

from pathlib import Path

import click

from cli.answers import Exit, leave

_DEFAULT = Path("/etc/isthmus/agent.toml")


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=_DEFAULT,
    show_default=True,
    help="The agent's configuration; every key has a default, so the file may be missing.",
)
def agent(config: Path) -> None:
    """Run the node agent in the foreground, until SIGTERM."""
    from agent.server import main

    leave(Exit(main(config)))
