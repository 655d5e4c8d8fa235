"""The table's rules, as nft reads them."""

from masquerade.names import KEPT, PODS, SKELETON


def test_each_family_has_one_rule_and_two_sets() -> None:
    script = SKELETON.script()

    assert script.count("masquerade fully-random") == 2
    assert "type nat hook postrouting priority srcnat + 10; policy accept;" in script
    for name in (one.name for one in (*PODS.values(), *KEPT.values())):
        assert f"set {name} {{" in script
        assert f"@{name}" in script


def test_multicast_is_left_alone() -> None:
    script = SKELETON.script()

    assert "ip daddr != 224.0.0.0/4" in script
    assert "ip6 daddr != ff00::/8" in script
