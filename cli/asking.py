"""Where a command's facts come from: the agent, or its store on disk when it is away."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from cli.answers import Problem, Unreachable, note

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
        return replace(
            self,
            attachments=tuple(row for row in self.attachments if row["network"] == network),
            usage=tuple(row for row in self.usage if row["network"] == network),
        )


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


def read_attachments(socket: str, store: str) -> Reading:
    """What is attached.  Raises Problem when neither agent nor store can be read."""
    try:
        answer = ask_agent(socket, {"op": "ipam-show"})
    except Unreachable as exc:
        return Reading(source="disk", attachments=_on_disk(store, exc))
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
        return "disk", duplicates(_on_disk(store, exc))


def duplicates(attachments: tuple[dict[str, Any], ...]) -> list[str]:
    """Addresses that two attachments of one network hold, one line each."""
    holder: dict[tuple[str, str], str] = {}
    problems = []
    for row in attachments:
        key = f"{row['network']}/{row['container_id']}/{row['ifname']}"
        for interface in row["addresses"]:
            address = interface.partition("/")[0]
            other = holder.setdefault((row["network"], address), key)
            if other != key:
                problems.append(f"{address} is held by {other} and by {key}")
    return problems


def _on_disk(store: str, away: Unreachable) -> tuple[dict[str, Any], ...]:
    from ipam.sqlite import read_records

    from agent.admin import describe
    from ipam.errors import StoreUnavailable

    if not Path(store).exists():
        raise Unreachable(f"{away.message}; and there is no store {store}")
    try:
        records = read_records(Path(store))
    except StoreUnavailable as exc:
        raise Problem(f"the agent does not answer, and its store cannot be read: {exc}") from exc
    note(f"The agent does not answer: this is a reading of {store}, not of what runs.")
    return tuple(describe(record) for record in sorted(records, key=lambda record: record.who))
