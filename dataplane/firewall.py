"""Firewalls of others: which chains drop what is forwarded.  Nothing is changed."""

import json
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dataplane.iptables_legacy import PROGRAMS, loaded
from dataplane.programs import ProgramMissing, run

_OWNERS = {"Docker": "DOCKER", "ufw": "ufw", "firewalld": "firewalld", "Calico": "cali-"}
"""By the name of a table, or with what names of chains begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardChain:
    """A base chain that forwarded packets pass.

    *drops* when a packet that no rule decides on is dropped: by the policy, or by a last rule
    without a condition.  *accepts* are the interfaces that its table accepts by name; *owners*
    whose chains are in it, as far as they are known.
    """

    family: str
    table: str
    name: str
    drops: bool
    accepts: frozenset[str] = frozenset()
    owners: tuple[str, ...] = ()

    def is_shut_for(self, prefix: str) -> bool:
        """Whether nothing in it lets links through whose names begin with *prefix*."""
        return self.drops and not any(name.startswith(prefix) for name in self.accepts)

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall:
    """nft's version and the forward chains; *fault* says what could not be looked at."""

    version: tuple[int, ...] = ()
    chains: tuple[ForwardChain, ...] = ()
    fault: str = ""


def observe_firewall() -> Firewall:
    """nft's view, and the one of iptables-legacy where it is in use."""
    legacy = legacy_chains()
    try:
        done = run(["nft", "-j", "-t", "list", "ruleset"])
    except ProgramMissing as exc:
        return Firewall(fault=str(exc), chains=legacy)
    if done.status:
        return Firewall(fault=done.complaint, chains=legacy)
    try:
        version, chains = parse_ruleset(done.stdout)
    except (ValueError, KeyError, TypeError) as exc:
        return Firewall(fault=f"nft's JSON cannot be read: {exc}", chains=legacy)
    return Firewall(version=version, chains=chains + legacy)


def parse_ruleset(ruleset: str) -> tuple[tuple[int, ...], tuple[ForwardChain, ...]]:
    """nft's version and forward chains from its JSON (libnftables-json(5))."""
    version: tuple[int, ...] = ()
    forward: list[dict[str, Any]] = []
    rules: dict[tuple[str, str], list[dict[str, Any]]] = {}
    names: dict[tuple[str, str], set[str]] = {}
    for entry in json.loads(ruleset)["nftables"]:
        if own := entry.get("chain"):
            names.setdefault((own["family"], own["table"]), set()).add(own["name"])
        if "metainfo" in entry:
            version = parse_version(entry["metainfo"]["version"])
        elif entry.get("chain", {}).get("hook") == "forward":
            forward.append(entry["chain"])
        elif "rule" in entry:
            rule = entry["rule"]
            rules.setdefault((rule["family"], rule["table"]), []).append(rule)
    return version, tuple(
        _forward_chain(chain, rules.get(place, []), names[place])
        for chain in forward
        for place in [(chain["family"], chain["table"])]
        if chain["family"] in ("ip", "ip6", "inet")
    )


def parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def _forward_chain(
    chain: dict[str, Any], rules: Sequence[dict[str, Any]], names: Collection[str]
) -> ForwardChain:
    own = [rule["expr"] for rule in rules if rule["chain"] == chain["name"]]
    return ForwardChain(
        family=chain["family"],
        table=chain["table"],
        name=chain["name"],
        drops=chain.get("policy") == "drop" or any(map(_drops_all, own)),
        accepts=frozenset(name for rule in rules for name in _accepted(rule["expr"])),
        owners=owners(chain["table"], names),
    )


def owners(table: str, chains: Collection[str]) -> tuple[str, ...]:
    """Who makes chains of these names in a table of this one."""
    return tuple(
        owner
        for owner, prefix in _OWNERS.items()
        if table == prefix or any(name.startswith(prefix) for name in chains)
    )


def _drops_all(expressions: Sequence[dict[str, Any]]) -> bool:
    keys = {key for expression in expressions for key in expression}
    return bool(keys & {"drop", "reject"}) and keys <= {"drop", "reject", "counter", "log"}


def _accepted(expressions: Sequence[dict[str, Any]]) -> Iterable[str]:
    """Interface names a rule accepts packets of; those of a `ct state` rule alone do not count."""
    if not any("accept" in expression for expression in expressions):
        return
    for expression in expressions:
        match = expression.get("match", {})
        left = match.get("left")
        key = left.get("meta", {}).get("key") if isinstance(left, dict) else None
        if key in ("iifname", "oifname") and match.get("op") == "==":
            right = match["right"]
            names = right.get("set", []) if isinstance(right, dict) else [right]
            yield from (name for name in names if isinstance(name, str))


def legacy_chains() -> tuple[ForwardChain, ...]:
    """The forward chains of iptables-legacy, where it is in use."""
    found = []
    for family, program in PROGRAMS.items():
        # Asking would load the table, so only one that is loaded is asked for.
        if "filter" in loaded(family):
            with suppress(OSError, ProgramMissing):
                found.append(parse_legacy(family.name.lower(), run([program, "-S"]).stdout))
    return tuple(found)


def parse_legacy(family: str, listing: str) -> ForwardChain:
    """The forward chain from the output of `iptables -S`."""
    lines = [line.split() for line in listing.splitlines()]
    drops = ["-P", "FORWARD", "DROP"] in lines or any(
        line in (["-A", "FORWARD", "-j", "DROP"], ["-A", "FORWARD", "-j", "REJECT"])
        for line in lines
    )
    accepts = {
        line[at + 1]
        for line in lines
        if line[-2:] == ["-j", "ACCEPT"]
        for at, word in enumerate(line[:-1])
        if word in ("-i", "-o") and line[at - 1] != "!"
    }
    return ForwardChain(
        family=family,
        table="filter of iptables-legacy",
        name="FORWARD",
        drops=drops,
        accepts=frozenset(accepts),
        owners=owners("", [line[1] for line in lines if line[0] == "-N"]),
    )
