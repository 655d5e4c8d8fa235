"""The plugin in one process, as far as it goes without a kernel's help."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from agent import standalone
from agent.boot import boot_id, now_ns
from agent.config import AgentConfig
from agent.wiring import lock_state
from cni.spool import Spool
from tests.unit.cni.fakes import World

CONF = b'{"cniVersion": "1.0.0", "name": "shop", "type": "isthmus", "ipam": {"type": "isthmus"}}'


class Stdin:
    """Standard input of a process."""

    def __init__(self, data: bytes = CONF, failure: OSError | None = None) -> None:
        self.buffer = self
        self._data = io.BytesIO(data)
        self._failure = failure

    def read(self, size: int) -> bytes:
        if self._failure:
            raise self._failure
        return self._data.read(size)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The environment of a runtime, and a configuration that names a state directory."""
    config = tmp_path / "agent.toml"
    config.write_text(f'state_dir = "{tmp_path / "state"}"\n')
    for name, value in (
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/no/such/netns"),
        ("CNI_PATH", "/no/such/bin"),
        ("ISTHMUS_CONFIG", str(config)),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ISTHMUS_STARTED_NS", raising=False)
    monkeypatch.setattr(sys, "stdin", Stdin())
    return monkeypatch


def run(capsysbinary: pytest.CaptureFixture[bytes]) -> tuple[int, dict[str, object]]:
    status = standalone.main()
    return status, json.loads(capsysbinary.readouterr().out)


def test_version_reads_nothing(
    environment: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    environment.setenv("CNI_COMMAND", "VERSION")
    environment.setenv("ISTHMUS_CONFIG", "/no/such/file")
    environment.setattr(sys, "stdin", Stdin(failure=OSError("closed")))

    status, document = run(capsysbinary)

    assert status == 0
    assert document["cniVersion"] == "1.1.0"


def test_without_a_command_it_says_what_it_is_to_people(
    environment: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    environment.delenv("CNI_COMMAND")

    status = standalone.main()
    captured = capsysbinary.readouterr()

    assert (status, captured.out) == (0, b"")
    assert captured.err.splitlines()[1] == (
        b"CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
    )


def test_input_that_cannot_be_read_is_5(
    environment: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    environment.setattr(sys, "stdin", Stdin(failure=OSError(5, "Input/output error")))

    status, document = run(capsysbinary)

    assert (status, document["code"]) == (1, 5)
    assert str(document["msg"]).startswith("error reading from stdin: ")


def test_a_configuration_of_the_agent_that_is_wrong_is_7(
    environment: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    (tmp_path / "agent.toml").write_text("colour = 1\n")

    status, document = run(capsysbinary)

    assert (status, document["code"]) == (1, 7)
    assert document["msg"] == "invalid agent configuration"
    assert "unknown key 'colour'" in str(document["details"])


def test_a_state_directory_that_cannot_be_made_is_11(
    environment: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    (tmp_path / "state").touch()

    status, document = run(capsysbinary)

    assert (status, document["code"], document["msg"]) == (1, 11, "cannot start")


def test_the_request_is_what_the_launcher_says_it_is(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ISTHMUS_PROGRAM", "/opt/cni/bin/isthmus-ipam")
    environment.setenv("ISTHMUS_STARTED_NS", "4711")

    found = standalone._request()

    own = os.stat("/proc/self/ns/net")
    assert (found.program, found.started_ns, found.stdin) == ("isthmus-ipam", 4711, CONF)
    assert (found.boot_id, found.caller_netns) == (boot_id(), (own.st_dev, own.st_ino))
    assert found.environment["CNI_CONTAINERID"] == "c1"


def test_without_a_launcher_the_request_starts_now(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ISTHMUS_STARTED_NS", "soon")
    before = now_ns()

    assert standalone._request().started_ns >= before


def locked(tmp_path: Path) -> AgentConfig:
    config = AgentConfig(state_dir=tmp_path / "state")
    config.state_dir.mkdir()
    return config


def test_where_another_is_at_work_a_deletion_waits_in_the_spool(
    world: World, tmp_path: Path
) -> None:
    config = locked(tmp_path)
    asked = world.request("DEL", world.conf())

    found = standalone._locked_out(asked, config, ValueError("locked"))

    (entry,) = Spool(config.spool_dir).pending()
    assert (found.status, found.stdout) == (0, b"")
    assert entry.request == asked


def test_where_it_cannot_be_kept_that_is_an_error(world: World, tmp_path: Path) -> None:
    config = locked(tmp_path)
    config.spool_dir.touch()

    found = standalone._locked_out(world.request("DEL", world.conf()), config, ValueError("x"))

    assert json.loads(found.stdout)["code"] == 11


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "GC", "STATUS"])
def test_where_another_is_at_work_other_verbs_are_told_so(
    world: World, tmp_path: Path, verb: str
) -> None:
    config = locked(tmp_path)
    held = lock_state(config.lock)
    os.close(held)

    found = standalone._locked_out(
        world.request(verb, world.conf()), config, ValueError("another is at work")
    )

    document = json.loads(found.stdout)
    assert (found.status, document["code"], document["msg"]) == (1, 11, "state is locked")
    assert document["details"] == "another is at work"


def test_a_reader_that_went_away_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        status = standalone._answer(standalone.Response(0, b"{}"))
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)  # what is buffered has to go somewhere

    assert status == 1
