"""How commands speak: tables for people, JSON for programs, one exit status for each outcome."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import IntEnum
from typing import Any, NoReturn

import click

from agent.config import AgentConfig, load
from net.settings import ConfigError

Columns = Mapping[str, Callable[[Any], object]]
"""Headings, and what of a row stands under each."""


class Exit(IntEnum):
    """Exit statuses; 2 is click's own for a wrong command line."""

    FINE = 0
    PROBLEM = 1
    USAGE = 2
    UNREACHABLE = 3


class Problem(click.ClickException):
    """What was asked for could not be done; the message says what to do about it."""

    exit_code = Exit.PROBLEM


class Unreachable(click.ClickException):
    """The agent does not answer, and without it there is no answer."""

    exit_code = Exit.UNREACHABLE


def configured() -> AgentConfig:
    """The agent's configuration in its usual place; its faults are the agent's to report."""
    try:
        return load(None)
    except ConfigError:
        return AgentConfig()


json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for programs.")
socket_option = click.option(
    "--socket",
    type=click.Path(dir_okay=False),
    default=lambda: str(configured().socket),
    show_default="as the agent's configuration says",
    envvar="ISTHMUS_SOCKET",
    help="The agent's socket.",
)
store_option = click.option(
    "--store",
    type=click.Path(dir_okay=False),
    default=lambda: str(configured().database),
    show_default="as the agent's configuration says",
    help="The agent's store, read when the agent is away.",
)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print *rows* under *columns*, or the sentence *empty* when there are none."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        click.echo(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*(_plain(cell) for cell in row))
    console = Console()
    if not console.is_terminal:  # a pipe has no width: never fold what a program may read
        console = Console(width=max(80, _width(columns, cells)))
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_rows(
    rows: Sequence[Any],
    columns: Columns,
    *,
    as_json: bool,
    empty: str,
) -> None:
    """Print *rows* as they are, or of each what *columns* take from it."""
    if as_json:
        print_json(rows)
        return
    cells = [[of(row) for of in columns.values()] for row in rows]
    print_table(tuple(columns), cells, empty=empty)


def note(text: str) -> None:
    """Say something beside the answer: on standard error, so that pipes stay clean."""
    click.echo(text, err=True)


def leave(status: Exit) -> NoReturn:
    click.get_current_context().exit(status)


def _plain(cell: str) -> Any:
    from rich.text import Text

    return Text(cell)


def _width(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    longest = (max(map(len, column)) for column in zip(columns, *cells, strict=True))
    return sum(width + 3 for width in longest)
