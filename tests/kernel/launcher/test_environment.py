"""What the launcher decides by itself, before any agent is asked."""

import json
import os
import subprocess

import pytest

from cni.request import Response
from tests.kernel.launcher.fake_agent import FakeAgent, answering
from tests.kernel.launcher.process import (
    ATTACHMENT,
    CONFIG,
    TIMEOUT_S,
    Launcher,
)

pytestmark = pytest.mark.kernel


def test_without_a_command_it_says_what_it_is_on_stderr(launcher: Launcher) -> None:
    done = launcher.execute({}, b"", name="isthmus-ipam")

    assert (done.status, done.stdout) == (0, b"")
    assert done.stderr.startswith(b"isthmus-ipam ")
    assert done.stderr.endswith(
        b"CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
    )


def test_version_ignores_every_other_variable_and_does_not_read_stdin(launcher: Launcher) -> None:
    environment = {
        "CNI_COMMAND": "VERSION",
        "CNI_NETNS": "dummy",
        "CNI_IFNAME": "much too long for an interface",
        "CNI_CONTAINERID": "",
    }
    read, write = os.pipe()
    try:
        done = subprocess.run(
            ["isthmus"],
            executable=launcher.binary,
            env=environment,
            stdin=read,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    finally:
        os.close(read)
        os.close(write)

    assert done.returncode == 0
    assert json.loads(done.stdout) == {
        "cniVersion": "1.1.0",
        "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }


def test_an_unknown_command_is_named(launcher: Launcher) -> None:
    error = launcher.run("NOPE").error

    assert (error["code"], error["msg"]) == (4, "unknown CNI_COMMAND: NOPE")
    assert "STATUS or VERSION" in error["details"]


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("ADD", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH"),
        ("DEL", "CNI_CONTAINERID,CNI_IFNAME"),
        ("CHECK", "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME"),
        ("GC", "CNI_PATH"),
    ],
)
@pytest.mark.parametrize("how", ["unset", "empty"])
def test_all_missing_variables_are_listed_at_once(
    launcher: Launcher, command: str, missing: str, how: str
) -> None:
    empty = dict.fromkeys((*ATTACHMENT, "CNI_PATH"), "") if how == "empty" else {}
    done = launcher.execute({"CNI_COMMAND": command, **empty}, CONFIG, name="isthmus")

    assert done.error["code"] == 4
    assert done.error["msg"] == f"required env variables [{missing}] missing"


@pytest.mark.parametrize("value", ["-c1", "_c", ".", "a/b", "a b", "c1\n", "é", "c1;x"])
def test_a_container_id_out_of_the_grammar_is_refused(launcher: Launcher, value: str) -> None:
    error = launcher.run("DEL", CNI_CONTAINERID=value).error

    assert (error["code"], error["msg"]) == (4, "invalid characters in containerID")
    assert error["details"] == value


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("0123456789abcdef", "is longer than 15 bytes"),
        ("é" * 8, "is longer than 15 bytes"),
        (".", "must not be . or .."),
        ("..", "must not be . or .."),
        *(
            (f"a{character}b", "must not contain / or : or white space")
            for character in "/: \t\n\v\f\r\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"
        ),
    ],
)
def test_an_interface_name_the_kernel_would_not_take_is_refused(
    launcher: Launcher, value: str, fault: str
) -> None:
    error = launcher.run("DEL", CNI_IFNAME=value).error

    assert (error["code"], error["msg"]) == (4, f"interface name in CNI_IFNAME {fault}")
    assert error["details"] == value


@pytest.mark.parametrize(
    "value", ["0123456789abcde", "é" * 7, "\u200b\u2010", "...", b"\x85\xa0\xe2\x80"]
)
def test_an_interface_name_the_kernel_takes_is_passed_on(
    launcher: Launcher, value: str | bytes
) -> None:
    environment = {os.fsencode(k): os.fsencode(v) for k, v in launcher.environment("DEL").items()}
    environment[b"CNI_IFNAME"] = os.fsencode(value)
    with FakeAgent(launcher.socket, answering(Response(0))) as agent:
        done = launcher.execute(environment, CONFIG, name="isthmus")

        assert done.status == 0
        assert agent.call().request.environment["CNI_IFNAME"] == os.fsdecode(value)


def test_an_error_is_json_whatever_bytes_it_quotes(launcher: Launcher) -> None:
    environment = {
        b"CNI_COMMAND": b"DEL",
        b"CNI_IFNAME": b"eth0",
        b"CNI_CONTAINERID": b'"\\\x01\xff\xed\xa0\x80\xf4\x90\x80\x80\xc3\xa9\xe2\x82'
        + b"\x1f" * 900,
    }
    error = launcher.execute(environment, CONFIG, name="isthmus").error

    bad = "\ufffd"
    assert error["details"].startswith(f'"\\\x01{bad}{bad * 3}{bad * 4}é{bad * 2}\x1f')


@pytest.mark.parametrize("command", ["GC", "STATUS"])
def test_variables_that_a_verb_does_not_use_may_be_empty(launcher: Launcher, command: str) -> None:
    empty = dict.fromkeys((*ATTACHMENT, "CNI_ARGS"), "")
    with FakeAgent(launcher.socket, answering(Response(0))) as agent:
        done = launcher.run(command, CONFIG, **empty)

        assert (done.status, done.stdout) == (0, b"")
        assert agent.call().acknowledged


@pytest.mark.parametrize("command", ["DEL", "CHECK", "STATUS"])
def test_no_path_is_needed_where_only_delegates_use_it(launcher: Launcher, command: str) -> None:
    with FakeAgent(launcher.socket, answering(Response(0))):
        assert launcher.run(command, CNI_PATH="").status == 0
