"""The table of attachments."""

import json

from tests.unit.cli.conftest import Agent, Run

ROW = {
    "network": "isthmus",
    "container_id": "0123456789abcdef",
    "ifname": "eth0",
    "addresses": ["10.66.0.2/16", "fd66::2/64"],
    "state": "held",
    "sandbox": "/run/netns/c1",
}
OTHER = ROW | {"network": "lab", "container_id": "other"}


def test_people_get_a_table_with_short_ids(run: Run, agent: Agent) -> None:
    path = agent(lambda op: {"attachments": [ROW, OTHER], "usage": []})

    output = run("attachments", "--socket", path).output

    assert "0123456789ab " in output
    assert "0123456789abc" not in output
    assert "10.66.0.2/16 fd66::2/64" in output


def test_programs_get_whole_ids_and_the_source(run: Run, agent: Agent) -> None:
    path = agent(lambda op: {"attachments": [ROW], "usage": []})

    found = json.loads(run("attachments", "--json", "--socket", path).output)

    assert found == {"source": "agent", "attachments": [ROW]}


def test_one_network_can_be_chosen_and_ids_shown_in_full(run: Run, agent: Agent) -> None:
    path = agent(lambda op: {"attachments": [ROW, OTHER], "usage": []})

    output = run("attachments", "--network", "isthmus", "--no-trunc", "--socket", path).output

    assert "0123456789abcdef" in output
    assert "lab" not in output


def test_a_column_without_a_value_is_left_out(run: Run, agent: Agent) -> None:
    without = agent(lambda op: {"attachments": [ROW | {"pod": ""}], "usage": []})

    assert "POD" not in run("attachments", "--socket", without).output


def test_pods_have_a_column_where_there_are_any(run: Run, agent: Agent) -> None:
    rows = [ROW | {"pod": "shop/web"}, OTHER]
    path = agent(lambda op: {"attachments": rows, "usage": []})

    assert "shop/web" in run("attachments", "--socket", path).output


def test_nothing_attached_is_a_sentence(run: Run, agent: Agent) -> None:
    path = agent(lambda op: {"attachments": [], "usage": []})

    assert run("attachments", "--socket", path).output == "Nothing is attached.\n"
