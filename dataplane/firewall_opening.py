"""Let packets of pods through forward chains of others, on request.

What any table drops is dropped, so an accept of ours has to be in the very chain: two rules at its
head, for what comes from links of ours and what goes to them, with a comment by which they are
known again.  They go when whoever owns the chain flushes it, and are put there again by whoever
calls again.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from dataplane.errors import NftError
from dataplane.firewall import ForwardChain, legacy_chains, parse_ruleset
from dataplane.iptables_legacy import PROGRAMS
from dataplane.nft.objects import Family
from dataplane.nft.runner import NftRunner
from dataplane.programs import ProgramMissing, run

MARK = "isthmus"
FIREWALLD = "firewalld"
"""Its table is its own: it takes ranges of addresses into a zone, and flushes what others add."""

_OUR_TABLES = "isthmus"


def open_for(prefix: str) -> list[str]:
    """Let through what comes from links whose names begin with *prefix*, or goes to them.

    Returns the chains that were shut.  Raises DataplaneError.
    """
    chains, _ = _observe()
    shut = [each for each in chains if each.is_shut_for(prefix) and FIREWALLD not in each.owners]
    if script := opening(shut, prefix):
        NftRunner().load(script)
    legacy = [each for each in legacy_chains() if each.is_shut_for(prefix)]
    for chain in legacy:
        for side in ("-i", "-o"):
            _legacy(chain.family, "-I", side, prefix)
    return [str(each) for each in (*shut, *legacy)]


def close_for(prefix: str) -> bool:
    """Take away all rules of ours; returns whether there were any.  Raises DataplaneError."""
    _, rules = _observe()
    if rules:
        NftRunner().load("".join(rules))
    are_there = bool(rules)
    for chain in legacy_chains():
        if not any(name.startswith(prefix) for name in chain.accepts):
            continue
        for side in ("-i", "-o"):
            while _legacy(chain.family, "-D", side, prefix, tolerate=True):
                are_there = True
    return are_there


def is_open_for(prefix: str) -> bool:
    """Whether there is a rule of ours, in iptables-legacy one like it.  Raises DataplaneError."""
    _, rules = _observe()
    names = {name for chain in legacy_chains() for name in chain.accepts}
    return bool(rules) or any(name.startswith(prefix) for name in names)


def opening(chains: Sequence[ForwardChain], prefix: str) -> str:
    """The nft script that lets through *chains* what is of links with this *prefix*."""
    return "".join(
        f"insert rule {chain.family} {chain.table} {chain.name} "
        f'{side} "{prefix}*" counter accept comment "{MARK}"\n'
        for chain in chains
        for side in ("oifname", "iifname")
    )


def _observe() -> tuple[tuple[ForwardChain, ...], list[str]]:
    """The forward chains of others, and what deletes the rules of ours in them.

    Chain by chain: a whole ruleset of others may be large, or crash nft.
    """
    listed = _listed("chains")
    for entry in list(listed):
        chain = entry.get("chain", {})
        if chain.get("hook") == "forward" and not chain["table"].startswith(_OUR_TABLES):
            place = chain["family"], chain["table"], chain["name"]
            listed += [each for each in _listed("chain", *place) if "rule" in each]
    _, chains = parse_ruleset(json.dumps({"nftables": listed}))
    others = tuple(each for each in chains if not each.table.startswith(_OUR_TABLES))
    return others, list(closing(listed))


def closing(listed: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of nft that delete the rules of ours among those that nft *listed*."""
    for entry in listed:
        rule = entry.get("rule", {})
        if rule.get("comment") == MARK:
            place = f"{rule['family']} {rule['table']} {rule['chain']}"
            yield f"delete rule {place} handle {rule['handle']}\n"


def _listed(*what: str) -> list[dict[str, Any]]:
    done = run(["nft", "-j", "list", *what])
    if done.status:
        raise NftError(done.complaint)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    except (ValueError, KeyError, TypeError) as exc:
        raise NftError(f"nft's JSON cannot be read: {exc}") from exc
    return found


def _legacy(family: str, verb: str, side: str, prefix: str, *, tolerate: bool = False) -> bool:
    """Whether it was done."""
    program = PROGRAMS[Family[family.upper()]]
    rule = [side, f"{prefix}+", "-m", "comment", "--comment", MARK, "-j", "ACCEPT"]
    done = run([program, "-w", verb, "FORWARD", *rule])
    if done.status and not tolerate:
        raise ProgramMissing(f"{program}: {done.complaint}")
    return not done.status
