"""A configuration that changes while the agent runs."""

import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from agent.config import AgentConfig, load
from agent.live import Live
from masquerade.settings import Settings

IPAMD = """
[ipamd]
endpoints = ["10.0.0.1:9476"]
ca = "/ca"
certificate = "/cert"
key = "/key"
"""
TENS = Settings(non_masquerade_cidrs=(ip_network("10.0.0.0/8"),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "agent.toml"
    found.write_text(IPAMD)
    return found


def put(path: Path, text: str) -> None:
    """As an editor, or a mounted ConfigMap: another file under the name."""
    draft = path.with_suffix(".new")
    draft.write_text(IPAMD + text)
    os.replace(draft, path)


def test_how_egress_is_translated_is_followed(path: Path) -> None:
    live = Live(load(path), path)
    found = [live.masquerade]
    put(path, '[masquerade]\nnon_masquerade_cidrs = ["10.0.0.0/8"]\n')
    found.append(live.masquerade)
    put(path, "")
    found.append(live.masquerade)

    assert found == [None, TENS, None]


def test_a_file_that_cannot_be_used_changes_nothing_and_is_complained_of(path: Path) -> None:
    put(path, "[masquerade]\n")
    live = Live(load(path), path)
    put(path, '[masquerade]\nnon_masquerade_cidrs = ["10.0.0.1/8"]\n')
    kept, complaint = live.masquerade, live.complaint
    put(path, '[masquerade]\nnon_masquerade_cidrs = ["10.0.0.0/8"]\n')

    assert kept == Settings()
    assert "10.0.0.1/8 has host bits set" in complaint
    assert live.masquerade == TENS
    assert live.complaint == ""


def test_without_a_file_there_is_nothing_to_follow(tmp_path: Path) -> None:
    gone = Live(AgentConfig(masquerade=TENS), tmp_path / "none")

    assert Live(AgentConfig(masquerade=TENS), None).masquerade == TENS
    assert gone.masquerade == TENS
