"""The program that is run where the configuration allows it and no agent is there."""

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni.request import Response
from cni.spool import Spool
from tests.kernel.launcher.fake_agent import FakeAgent, answering, hanging
from tests.kernel.launcher.process import (
    OTHERS,
    STANDALONE_CONFIG,
    VERBS,
    Launcher,
)

pytestmark = pytest.mark.kernel


def install_standalone(launcher: Launcher) -> None:
    """One that prints what it was given."""
    launcher.standalone.write_text(
        '#!/bin/sh\necho "$CNI_COMMAND $CNI_CONTAINERID $ISTHMUS_STARTED_NS"\ncat\nexit 3\n',
        encoding="ascii",
    )
    launcher.standalone.chmod(0o755)


@pytest.mark.parametrize("command", VERBS)
def test_every_verb_that_finds_no_agent_runs_the_standalone_program(
    launcher: Launcher, command: str
) -> None:
    install_standalone(launcher)
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    done = launcher.run(command, STANDALONE_CONFIG, CNI_CONTAINERID="c9")
    first, _, rest = done.stdout.partition(b"\n")

    verb, container_id, started = first.split()
    assert (verb.decode(), container_id, rest) == (command, b"c9", STANDALONE_CONFIG)
    assert before <= int(started) <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert done.status == 3
    assert launcher.spooled() == []


def test_an_agent_is_preferred_to_the_standalone_program(launcher: Launcher) -> None:
    install_standalone(launcher)
    with FakeAgent(launcher.socket, answering(Response(0, b"{}"))):
        assert launcher.run("ADD", STANDALONE_CONFIG).stdout == b"{}"


def test_a_hung_agent_does_not_make_way_for_the_standalone_program(launcher: Launcher) -> None:
    install_standalone(launcher)
    with FakeAgent(launcher.socket, hanging):
        assert launcher.run("ADD", STANDALONE_CONFIG).error["code"] == 11


@pytest.mark.parametrize(("command", "code"), OTHERS)
def test_a_standalone_program_that_is_missing_is_named(
    launcher: Launcher, command: str, code: int
) -> None:
    error = launcher.run(command, STANDALONE_CONFIG).error

    assert error["code"] == code
    assert error["cniVersion"] == "1.0.0"
    assert error["details"] == (
        f"standalone program {launcher.standalone}: No such file or directory"
    )


def test_a_deletion_is_kept_when_the_standalone_program_is_missing(launcher: Launcher) -> None:
    done = launcher.run("DEL", STANDALONE_CONFIG)
    (entry,) = Spool(launcher.spool).pending()

    assert (done.status, done.stdout) == (0, b"")
    assert entry.request.stdin == STANDALONE_CONFIG


@pytest.mark.parametrize(
    ("config", "standalone"),
    [
        (b'{"standalone":true}', True),
        (b' {\t"a":[{"x":["]"]}],\n"standalone" :\r true , "b":1}', True),
        (b'{"a":"\\"","standalone":true}', True),
        (b'{"standalone":false,"standalone":true}', True),
        (b'{"standalone":true,"standalone":false}', False),
        (b'{"standalone":"true"}', False),
        (b'{"standalone":1}', False),
        (b'{"ipam":{"standalone":true}}', False),
        (b'{"a":["standalone",true]}', False),
        (b'{"a":"\\",\\"standalone\\":true"}', False),
        (b'{"a":"standalone","b":true}', False),
        (b'{"standalone":[true]}', False),
        (b'["standalone",true]', False),
        (b"[" * 500_000 + b'{"standalone":true}', False),
    ],
)
def test_only_a_true_at_the_top_level_asks_for_the_standalone_program(
    launcher: Launcher, config: bytes, standalone: bool
) -> None:
    install_standalone(launcher)

    assert (launcher.run("STATUS", config).status == 3) == standalone


@pytest.mark.parametrize(
    ("config", "version"),
    [
        (b'{"cniVersion": "0.3.1"}', "0.3.1"),
        (b'{"x": {"cniVersion": "0.3.1"}, "cniVersion" : "0.2.0"}', "0.2.0"),
        (b'{"cniVersion": 1.0}', "1.1.0"),
        (b'{"cniVersion": "x\\"y"}', "1.1.0"),
        (b'{"cniVersion": "1.0.0.0.0.0.0.0.0.0"}', "1.1.0"),
        (b"nonsense", "1.1.0"),
    ],
)
def test_an_error_echoes_the_protocol_version_of_the_configuration(
    launcher: Launcher, config: bytes, version: str
) -> None:
    assert launcher.run("STATUS", config).error["cniVersion"] == version


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("standalone"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["standalone", "a", '"', "\\", ""]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(document=st.dictionaries(st.sampled_from(["standalone", "name", "é\\"]), documents))
def test_the_launcher_reads_any_configuration_as_a_json_parser_does(
    launcher: Launcher, document: dict[str, Any]
) -> None:
    install_standalone(launcher)
    done = launcher.run("DEL", json.dumps(document, indent=1).encode())

    assert done.status == (3 if document.get("standalone") is True else 0)
