import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import single_call
from agent.single_call import serve_one
from agent.wiring import lock_state
from cni.spool import Spool

Call = Callable[..., tuple[int, str]]

DEL = b'{"cniVersion": "0.4.0", "name": "shop", "type": "isthmus"}'


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory for calls that give up waiting for its lock at once."""
    (tmp_path / "agent.toml").write_text(f'state_dir = "{tmp_path}"\n')
    for name, value in {
        "ISTHMUS_CONFIG": str(tmp_path / "agent.toml"),
        "CNI_CONTAINERID": "c1",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/x",
        "CNI_NETNS": "/x",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(single_call, "_LOCK_WAIT_S", 0.0)
    return tmp_path


@pytest.fixture
def locked(state: Path) -> Iterator[Path]:
    fd = lock_state(state / "lock")
    yield state
    os.close(fd)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    def make(verb: str, stdin: bytes = DEL, **variables: str) -> tuple[int, str]:
        for name, value in {"CNI_COMMAND": verb, **variables}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(single_call, "_read_stdin", lambda: stdin)
        status = serve_one()
        return status, capfd.readouterr().out

    return make


@pytest.mark.parametrize(("verb", "code"), [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)])
def test_who_does_not_get_the_lock_is_told_to_try_again(
    locked: Path, call: Call, verb: str, code: int
) -> None:
    status, stdout = call(verb)
    error = json.loads(stdout)

    assert (status, error["code"], error["cniVersion"]) == (1, code, "0.4.0")
    assert str(locked / "lock") in error["details"]


def test_a_del_that_does_not_get_the_lock_is_kept_with_its_start(locked: Path, call: Call) -> None:
    answer = call("DEL", ISTHMUS_STARTED_NS="42")
    (entry,) = Spool(locked / "spool").pending()

    assert answer == (0, "")
    assert (entry.request.started_ns, entry.request.stdin) == (42, DEL)
    assert entry.request.environment["CNI_CONTAINERID"] == "c1"


def test_a_del_that_names_nobody_is_refused_and_not_kept(locked: Path, call: Call) -> None:
    status, stdout = call("DEL", b"no json")

    assert (status, json.loads(stdout)["code"]) == (1, 6)
    assert Spool(locked / "spool").pending() == []


def test_a_del_that_cannot_be_kept_says_so(locked: Path, call: Call) -> None:
    (locked / "spool").write_text("a file where the directory should be")
    status, stdout = call("DEL")

    assert (status, json.loads(stdout)["code"]) == (1, 11)
    assert json.loads(stdout)["msg"] == "the deletion cannot be kept for later"


@pytest.mark.parametrize("step", ["_wire", "_config"])
def test_a_bug_on_the_way_is_one_error_too(
    state: Path, call: Call, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def broken(*_: object) -> None:
        raise KeyError(step)

    monkeypatch.setattr(single_call, step, broken)

    status, stdout = call("ADD")

    assert (status, json.loads(stdout)["code"]) == (1, 999)


def test_a_state_directory_that_cannot_be_made_is_named(state: Path, call: Call) -> None:
    (state / "file").touch()
    (state / "agent.toml").write_text(f'state_dir = "{state}/file/below"\n')
    status, stdout = call("ADD")
    error = json.loads(stdout)

    assert (status, error["code"], error["msg"]) == (1, 11, "cannot start")
    assert f"{state}/file/below" in error["details"]


def test_a_call_imports_nothing_of_the_server_or_of_the_command_line() -> None:
    names = ("asyncio", "click", "rich", "prometheus_client", "tomllib", "urllib.request")
    script = f"import sys, agent.single_call; print(*(set({names}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout.strip()) == (0, "")
