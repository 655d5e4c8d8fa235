import re

from cni.tables import MAC_GUARD, NAT, skeleton


def test_every_set_is_used_by_a_rule_and_every_used_set_is_declared() -> None:
    for table in (NAT, MAC_GUARD):
        rules = "\n".join(rule for chain in table.chains for rule in chain.rules)

        assert set(re.findall(r"@(\w+)", rules)) == {each.name for each in table.sets}


def test_every_chain_is_hooked_or_jumped_to() -> None:
    for table in (NAT, MAC_GUARD):
        rules = "\n".join(rule for chain in table.chains for rule in chain.rules)
        loose = {chain.name for chain in table.chains if not chain.hook}

        assert set(re.findall(r"jump (\w+)", rules)) == loose


def test_ports_are_looked_up_only_for_traffic_to_the_host() -> None:
    jumps = [rule for chain in NAT.chains for rule in chain.rules if "jump hostports" in rule]

    assert len(jumps) == 3
    assert all("fib daddr type local" in rule for rule in jumps)


def test_the_two_families_have_the_same_rules() -> None:
    """But for loopback, which IPv6 has no way to route from."""
    rules = [rule for chain in NAT.chains for rule in chain.rules]
    four = {rule for rule in rules if re.search(r"@\w+4", rule)}
    six = {rule for rule in rules if re.search(r"@\w+6", rule)}
    translated = {
        re.sub(r"\bip\b", "ip6", rule).replace("224.0.0.0/4", "ff00::/8") for rule in four
    }

    assert {re.sub(r"(@[a-z]+)4", r"\g<1>6", rule) for rule in translated} == six


def test_the_skeleton_touches_no_table_but_ours() -> None:
    tables = set(re.findall(r"table (\w+ [\w-]+)", skeleton()))

    assert tables == {"inet isthmus-cni", "bridge isthmus-cni"}
