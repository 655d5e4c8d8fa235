"""Pools made, changed and deleted at the command line."""

import json
from typing import Any

from tests.unit.cli.conftest import Run, Served


def pool_row(run: Run, cluster: Served) -> dict[str, Any]:
    rows = json.loads(run("ipam", "pools", "list", "--json", *cluster.options).output)
    assert len(rows) == 1
    return dict(rows[0])


def test_pools_come_change_and_go(run: Run, cluster: Served) -> None:
    run("ipam", "init", *cluster.options)
    none = run("ipam", "pools", "list", *cluster.options)
    made = run(
        *("ipam", "pools", "create", "p", "10.9.0.0/24", "--label", "zone=a"),
        *("--reserve", "10.9.0.0/28", "--order", "3", *cluster.options),
    )
    first = pool_row(run, cluster)
    changed = run("ipam", "pools", "set", "p", "--state", "disabled", *cluster.options)
    grown = run("ipam", "pools", "set", "p", "--cidr", "10.9.0.0/23", *cluster.options)
    inside = run("ipam", "pools", "set", "p", "--no-masquerade", *cluster.options)
    bare = run("ipam", "pools", "set", "p", "--no-labels", "--no-reservations", *cluster.options)
    second = pool_row(run, cluster)
    listed = run("ipam", "pools", "list", *cluster.options)
    alone = run("ipam", "pools", *cluster.options)
    help_ = run("ipam", "pools", "--help")
    deleted = run("ipam", "pools", "delete", "p", *cluster.options)

    assert none.output == "No pool: isthmus ipam pools create NAME CIDR\n"
    assert made.output == "pool p: 10.9.0.0/24 in blocks of /26\n"
    assert [done.exit_code for done in (changed, grown, inside, bare, deleted)] == [0] * 5
    assert (first["selector"], first["order"], first["reservations"], first["masquerade"]) == (
        {"zone": "a"},
        3,
        ["10.9.0.0/28"],
        True,
    )
    assert (second["selector"], second["reservations"], second["state"], second["cidr"]) == (
        {},
        [],
        "disabled",
        "10.9.0.0/23",
    )
    assert listed.output.splitlines()[-1].split()[:8] == [
        *("p", "10.9.0.0/23", "pods", "/26", "disabled", "3", "no", "any"),
    ]
    assert alone.output == listed.output
    assert "delete" in help_.output


def test_pool_for_services_gives_single_addresses(run: Run, cluster: Served) -> None:
    run("ipam", "init", *cluster.options)
    made = run(
        *("ipam", "pools", "create", "lb", "192.0.2.240/28", "--for", "load-balancers"),
        *("--label", "tier=front", *cluster.options),
    )
    row = pool_row(run, cluster)
    draining = run("ipam", "pools", "set", "lb", "--state", "draining", *cluster.options)

    assert made.output == "pool lb: 192.0.2.240/28 for load balancers\n"
    assert (row["purpose"], row["blocks"], row["free"]) == ("load-balancers", 16, 16)
    assert draining.exit_code == 1
    assert "active or disabled" in draining.output


def test_what_would_break_an_invariant_is_refused_with_the_reason(
    run: Run, cluster: Served
) -> None:
    run("ipam", "init", *cluster.options)
    run("ipam", "pools", "create", "p", "10.9.0.0/24", *cluster.options)
    overlapping = run("ipam", "pools", "create", "q", "10.9.0.0/16", *cluster.options)
    twice = run("ipam", "pools", "create", "p", "10.8.0.0/24", *cluster.options)
    small = run("ipam", "pools", "create", "q", "10.8.0.0/28", *cluster.options)
    unknown = run("ipam", "pools", "set", "q", "--order", "1", *cluster.options)

    assert [done.exit_code for done in (overlapping, twice, small, unknown)] == [1, 1, 1, 1]
    assert "10.9.0.0/24" in overlapping.output
    assert "no pool q; there are: p" in unknown.output


def test_a_wrong_command_line_is_told_before_anybody_is_asked(run: Run) -> None:
    host_bits = run("ipam", "pools", "create", "p", "10.9.0.1/24", "--ipamd", "h:1")
    label = run("ipam", "pools", "create", "p", "10.9.0.0/24", "--label", "a", "--ipamd", "h:1")
    twice = run("ipam", "pools", "set", "p", "--label", "a=b", "--label", "a=c", "--ipamd", "h:1")
    nothing = run("ipam", "pools", "set", "p", "--ipamd", "h:1")
    both = run("ipam", "pools", "set", "p", "--no-labels", "--label", "a=b", "--ipamd", "h:1")
    huge = run("ipam", "pools", "set", "p", "--order", "99999999999", "--ipamd", "h:1")

    wrong = (host_bits, label, twice, nothing, both, huge)
    assert [done.exit_code for done in wrong] == [2] * len(wrong)
    assert "is not in the range" in huge.output
    assert "has host bits set" in host_bits.output
    assert "give KEY=VALUE" in label.output
    assert "one label is given twice" in twice.output
    assert "say what to change" in nothing.output
