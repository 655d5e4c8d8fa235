"""`isthmus completion`: what a shell needs to complete our commands."""

import click
from click.shell_completion import get_completion_class


@click.command(epilog="For bash: isthmus completion bash > /etc/bash_completion.d/isthmus")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL."""
    maker = get_completion_class(shell)
    assert maker is not None
    click.echo(maker(ctx.find_root().command, {}, "isthmus", "_ISTHMUS_COMPLETE").source())
