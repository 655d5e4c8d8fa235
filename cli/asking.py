"""Where a command's facts come from: the agent, or its store on disk when it is away."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from cli.answers import Problem, Unreachable, note

_AWAY = "The agent does not answer"
_HINT = "start it (systemctl start isthmus-agent, or isthmus agent), or name its socket by --socket"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Attachments and ranges as *source*, `agent` or `disk`, knows them."""

    source: str
    attachments: tuple[dict[str, Any], ...] = ()
    usage: tuple[dict[str, Any], ...] = ()

    def only(self, network: str | None) -> Self:
        """The same, of one network alone."""
        if network is None:
            return self
        rows = tuple(row for row in self.attachments if row["network"] == network)
        return replace(self, attachments=rows)

    def holding(self, address: str) -> Self:
        """The same, of the holder of *address* alone."""
        rows = tuple(
            row
            for row in self.attachments
            if address in {one.partition("/")[0] for one in row["addresses"]}
        )
        return replace(self, attachments=rows, usage=())


def ask_agent(socket: str, op: dict[str, Any]) -> dict[str, Any]:
    """The agent's answer to *op*.  Raises Unreachable, or Problem with the agent's refusal."""
    from agent.client import AgentAway, ask

    try:
        answer = ask(Path(socket), op)
    except AgentAway as exc:
        raise Unreachable(f"{exc}; {_HINT}") from exc
    if "error" in answer:
        raise Problem(answer["error"])
    return dict(answer)


def read_attachments(socket: str, store: str, *, quiet: bool = False) -> Reading:
    """What is attached; unless *quiet*, say it when that comes from the disk.

    Raises Unreachable when there is neither agent nor store, Problem for a store that cannot
    be read.
    """
    try:
        answer = ask_agent(socket, {"op": "ipam-show"})
    except Unreachable as exc:
        return Reading(source="disk", attachments=_on_disk(store, exc, quiet=quiet))
    return Reading(
        source="agent",
        attachments=tuple(answer["attachments"]),
        usage=tuple(answer["usage"]),
    )


def read_check(socket: str, store: str) -> tuple[str, list[str]]:
    """Where the answer comes from, and what is wrong with the addresses."""
    try:
        return "agent", list(ask_agent(socket, {"op": "ipam-check"})["problems"])
    except Unreachable as exc:
        return "disk", _check_disk(store, exc)


def _check_disk(store: str, away: Unreachable) -> list[str]:
    from ipam.reading import verify

    _need_store(store, away)
    note(f"{_AWAY}: only {store} is verified, not what runs.")
    return verify(Path(store))


def _on_disk(store: str, away: Unreachable, *, quiet: bool = False) -> tuple[dict[str, Any], ...]:
    from agent.admin import describe
    from ipam.errors import StoreUnavailable
    from ipam.reading import read_records

    _need_store(store, away)
    try:
        records = read_records(Path(store))
    except StoreUnavailable as exc:
        raise Problem(f"{_AWAY}, and its store cannot be read: {exc}") from exc
    if not quiet:
        note(f"{_AWAY}: this is a reading of {store}, not of what runs.")
    return tuple(describe(record) for record in sorted(records, key=lambda record: record.who))


def _need_store(store: str, away: Unreachable) -> None:
    if not Path(store).exists():
        raise Unreachable(f"{away.message}; and there is no store {store}")
