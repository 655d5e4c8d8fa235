import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.desired import Desired
from cni.nat import Published, plan
from dataplane.nft.objects import Family
from tests.unit.cni.published import Port, pod, published, who

Step = tuple[Published, bool]


@given(st.lists(st.tuples(published, st.booleans()), max_size=12))
def test_each_change_is_the_difference_of_two_whole_plans(steps: list[Step]) -> None:
    desired, held = Desired(), {}
    for each, stays in steps:
        before = plan(held.values())
        held.pop(each.who, None)
        if stays:
            held[each.who] = each
        after = plan(held.values())

        stale, missing = desired.put(each.who, each if stays else None)

        assert (stale, missing) == (before - after, after - before)
        assert desired.elements(Family.INET) | desired.elements(Family.BRIDGE) == after


@given(st.lists(published, max_size=6, unique_by=lambda each: each.who))
def test_what_serves_each_together_is_the_plan(all_of: list[Published]) -> None:
    desired = Desired(all_of)
    served = [desired.of(each) for each in all_of]

    assert frozenset().union(*served) <= plan(all_of)
    # A pair of subnets that was cut for another network's sake serves neither by itself.
    whole = {each for each in plan(all_of) if not each.of.name.startswith("local")}
    assert whole <= frozenset().union(*served)


def test_a_port_that_somebody_took_later_does_not_serve_the_former() -> None:
    early, late = (
        pod(name, started=at, port_mappings=(Port(80),)) for name, at in (("a", 1), ("b", 2))
    )
    desired = Desired([early, late])

    assert desired.of(early) == frozenset()
    assert {each.of.name for each in desired.of(late)} == {"hostport4_any", "hairpin4"}


def test_what_cannot_be_an_element_changes_nothing() -> None:
    desired = Desired([pod("a", masquerade=True)])

    with pytest.raises(ValueError, match="70000 is no port"):
        desired.put(who("a"), pod("a", port_mappings=(Port(70000),)))

    assert desired.find(who("a")) == pod("a", masquerade=True)
    assert desired.elements(Family.INET) == plan([pod("a", masquerade=True)])
