"""`isthmus agent`: the node daemon in the foreground."""

from pathlib import Path

import click

from cli.answers import Exit, leave


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The agent's configuration; without it /etc/isthmus/agent.toml, if that is there.",
)
def agent(config: Path | None) -> None:
    """Run the node agent, until SIGTERM."""
    from agent.daemon import main

    leave(Exit(main(config)))
