from dataclasses import replace

from agent.rounds import Report, View
from dataplane import rtnl
from tests.unit.agent.reconciling import HOST
from tests.unit.cni.fakes import link


def test_a_report_is_true_when_something_happened() -> None:
    assert not Report()
    assert Report(failed=1)
    assert Report(adopted=1)


def test_a_pair_is_complete_between_the_end_of_its_add_and_the_begin_of_its_del() -> None:
    made = link(HOST, 7, alias="isthmus/1 x", up=True)
    going = replace(made, group=rtnl.DELETE_GROUP)
    states = (made, replace(made, alias=""), going)

    assert [View({HOST: one}, list).complete(HOST) for one in states] == [True, False, False]
    assert not View({}, list).complete(HOST)


def test_ours_are_pairs_of_the_name_that_we_give() -> None:
    links = {
        one.name: one for one in (link(HOST, 7), link("eth0", 8), link("isth0", 9, kind="tun"))
    }

    assert [one.name for one in View(links, list).ours()] == [HOST]
