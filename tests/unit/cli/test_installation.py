"""What install decides, and the files it makes from templates."""

import json
import re
import tomllib
from dataclasses import fields
from ipaddress import ip_network
from pathlib import Path

import pytest

from agent.config import AgentConfig, IpamdConfig, KubernetesConfig
from agent.config import parse as parse_agent
from agent.placement import InstallConfig
from cli.installation import Action, Care, agent_config, conflist, decide, unit
from cli.places import CONF
from cni.config import parse
from cni.environment import Call, Verb

TEMPLATES = ["10-isthmus.conflist", "10-isthmus-routed.conflist"]


@pytest.mark.parametrize(
    ("care", "present", "recorded", "force", "action"),
    [
        (Care.REPLACE, None, None, False, Action.PUT),
        (Care.REPLACE, "new", None, False, Action.KEEP),
        (Care.REPLACE, "old", "old", False, Action.REPLACE),
        (Care.REPLACE, "foreign", None, False, Action.REPLACE_FOREIGN),
        (Care.REFUSE, "new", None, False, Action.KEEP),
        (Care.REFUSE, "old", "old", False, Action.REPLACE),
        (Care.REFUSE, "edited", "old", False, Action.REFUSE),
        (Care.REFUSE, "foreign", None, False, Action.REFUSE),
        (Care.REFUSE, "foreign", None, True, Action.REPLACE_FOREIGN),
        (Care.KEEP, "edited", "old", True, Action.KEEP),
        (Care.KEEP, None, "old", False, Action.PUT),
    ],
)
def test_what_becomes_of_a_file_follows_from_what_is_there(
    care: Care, present: str | None, recorded: str | None, force: bool, action: Action
) -> None:
    assert decide(care, wanted="new", present=present, recorded=recorded, force=force) is action


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_templates_are_configurations_we_take_in_every_version(name: str) -> None:
    document = json.loads((CONF / name).read_bytes())

    for version in document["cniVersions"]:
        stdin = document["plugins"][0] | {"name": document["name"], "cniVersion": version}
        conf = parse(json.dumps(stdin).encode(), Call(command=Verb.ADD))

        assert conf.ipam is not None
        assert conf.ipam.has_ipv6


def test_subnets_replace_ranges_and_bring_a_default_route_for_their_families() -> None:
    template = (CONF / TEMPLATES[0]).read_bytes()

    made = json.loads(conflist(template, [ip_network("10.9.0.0/24")], "br7"))

    plugin = made["plugins"][0]
    assert plugin["ipam"]["ranges"] == [[{"subnet": "10.9.0.0/24"}]]
    assert plugin["ipam"]["routes"] == [{"dst": "0.0.0.0/0"}]
    assert plugin["bridge"] == "br7"


def test_the_unit_starts_the_agent_with_its_configuration() -> None:
    template = (CONF / "isthmus-agent.service").read_bytes()

    config, state = Path("/etc/isthmus/agent.toml"), Path("/srv/isthmus")
    made = unit(template, ["/opt/isthmus/isthmus", "agent"], config, state)

    line = b"ExecStart=/opt/isthmus/isthmus agent --config /etc/isthmus/agent.toml\n"
    assert line in made
    assert b"RequiresMountsFor=/srv/isthmus\n" in made
    assert b"Type=notify\n" in made
    assert b"WatchdogSec=" in made
    assert b"@" not in made


def test_the_example_configuration_has_every_key_with_its_default() -> None:
    lines = (CONF / "agent.toml").read_text().splitlines()
    settings = [line[1:] for line in lines if re.match(r"#([a-z_]+ = |\[)", line)]

    document = tomllib.loads("\n".join(settings))
    defaults = {key: value for key, value in document.items() if not isinstance(value, dict)}

    assert set(document) == {field.name for field in fields(AgentConfig)}
    assert parse_agent(defaults) == AgentConfig()
    assert set(document["ipamd"]) == {field.name for field in fields(IpamdConfig)}
    assert parse_agent(document).ipamd is not None
    assert set(document["kubernetes"]) == {field.name for field in fields(KubernetesConfig)}
    assert set(document["install"]) == {field.name for field in fields(InstallConfig)}


def test_another_state_directory_is_written_into_the_configuration() -> None:
    example = (CONF / "agent.toml").read_bytes()

    changed = parse_agent(tomllib.loads(agent_config(example, Path("/srv/x")).decode()))

    assert changed == AgentConfig(state_dir=Path("/srv/x"))
    assert agent_config(example, AgentConfig().state_dir) == example
