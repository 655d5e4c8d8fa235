"""Facts come from the agent, or from its store when it is away."""

from ipaddress import ip_interface
from pathlib import Path

import pytest

from cli.answers import Problem, Unreachable
from cli.asking import ask_agent, read_attachments, read_check
from ipam.leases import Attachment, Record
from ipam.sqlite import open_store
from ipam.store import Put
from tests.unit.cli.conftest import Agent

RECORD = Record(
    who=Attachment("isthmus", "c1", "eth0"),
    boot_id="b",
    started_ns=1,
    sandbox="/run/netns/c1",
    netns_cookie=7,
    addresses=(ip_interface("10.66.0.2/16"),),
)


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = tmp_path / "isthmus.db"
    made = open_store(path)
    made.commit([Put(RECORD)])
    made.close()
    return str(path)


def test_the_agent_is_believed_before_the_disk(agent: Agent, store: str) -> None:
    path = agent(lambda op: {"attachments": [], "usage": [{"size": 9}]})

    found = read_attachments(str(path), store)

    assert (found.source, found.attachments, found.usage) == ("agent", (), ({"size": 9},))


def test_the_disk_is_read_when_the_agent_is_away_and_that_is_said(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = read_attachments("/nowhere/agent.sock", store)

    assert found.source == "disk"
    assert [row["addresses"] for row in found.attachments] == [["10.66.0.2/16"]]
    assert "a reading of" in capsys.readouterr().err


def test_only_one_network_can_be_asked_for(store: str) -> None:
    found = read_attachments("/nowhere/agent.sock", store, quiet=True)

    assert len(found.only("isthmus").attachments) == 1
    assert found.only("other").attachments == ()
    assert found.only(None) == found


def test_with_neither_agent_nor_store_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no store"):
        read_attachments("/nowhere/agent.sock", str(tmp_path / "none"))


def test_a_store_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(b"x" * 4096)

    with pytest.raises(Problem, match="cannot be read"):
        read_attachments("/nowhere/agent.sock", str(tmp_path / "junk"))


def test_a_refusal_of_the_agent_is_a_problem(agent: Agent) -> None:
    path = agent(lambda op: {"error": f"no {op['op']} today"})

    with pytest.raises(Problem, match="no status today"):
        ask_agent(str(path), {"op": "status"})


def test_the_check_falls_back_to_the_file_itself(agent: Agent, store: str) -> None:
    path = agent(lambda op: {"problems": ["odd"]})

    assert read_check(str(path), store) == ("agent", ["odd"])
    assert read_check("/nowhere/agent.sock", store) == ("disk", [])
