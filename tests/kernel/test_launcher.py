"""The launcher from outside: a real process, a fake agent on the other end of its socket.

The binary is a test build whose deadlines are a tenth; ISTHMUS_TEST_LAUNCHER names another,
which is how the suite runs against the one with sanitizers.
"""

import json
import os
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni.frames import REFUSED, encode_response
from cni.request import Response
from cni.spool import MAX_ENTRIES, Spool
from tests.kernel.fake_agent import FakeAgent, answering, hanging, saying

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
ATTACHMENT = {"CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/proc/self/ns/net"}
CONFIG = b'{"cniVersion": "0.4.0", "name": "shop", "type": "isthmus"}'
STANDALONE_CONFIG = b'{"cniVersion": "1.0.0", "name": "shop", "standalone": true}'
VERBS = ("ADD", "DEL", "CHECK", "GC", "STATUS")
OTHERS = [("ADD", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)]
TIMEOUT_S = 60


@pytest.fixture(scope="session")
def binary() -> str:
    given = os.environ.get("ISTHMUS_TEST_LAUNCHER")
    if given:
        return given
    subprocess.run(["make", "-sC", ROOT / "cni/launcher", "test-build"], check=True, timeout=120)
    return str(ROOT / "build/launcher/isthmus-launcher-test")


@dataclass(frozen=True, slots=True)
class Done:
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The one JSON document of a failure."""
        assert self.status == 1, self
        document: dict[str, Any] = json.loads(self.stdout.decode("utf-8"))
        assert set(document) == {"cniVersion", "code", "msg", "details"}
        return document


@dataclass(frozen=True, slots=True)
class Launcher:
    """The binary with a socket, a spool and a standalone program of the test's own."""

    binary: str
    directory: Path

    @property
    def socket(self) -> Path:
        return self.directory / "agent.sock"

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    @property
    def standalone(self) -> Path:
        return self.directory / "standalone"

    def environment(self, command: str, **variables: str) -> dict[str, str]:
        return {
            "CNI_COMMAND": command,
            "CNI_PATH": "/opt/cni/bin",
            "ISTHMUS_SOCKET": str(self.socket),
            "ISTHMUS_SPOOL": str(self.spool),
            "ISTHMUS_STANDALONE": str(self.standalone),
            **(ATTACHMENT if command not in ("GC", "STATUS") else {}),
            **variables,
        }

    def run(
        self, command: str, stdin: bytes = CONFIG, *, name: str = "isthmus", **variables: str
    ) -> Done:
        return self.execute(self.environment(command, **variables), stdin, name=name)

    def execute(
        self, environment: dict[str, str] | dict[bytes, bytes], stdin: bytes, *, name: str
    ) -> Done:
        done = subprocess.run(
            [name],
            executable=self.binary,
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Begin a call whose descriptors the test handles; end it by *ended*."""
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, **options}
        return subprocess.Popen(
            ["isthmus"], executable=self.binary, env=self.environment(command), **options
        )

    def spooled(self) -> list[str]:
        return sorted(os.listdir(self.spool)) if self.spool.exists() else []


@pytest.fixture
def launcher(binary: str, tmp_path: Path) -> Launcher:
    return Launcher(binary, tmp_path)


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Whatever happens in the block, the process has gone after it."""
    with process:
        try:
            yield process
            process.wait(timeout=TIMEOUT_S)
        finally:
            process.kill()


def close_stdin(process: subprocess.Popen[bytes], content: bytes = CONFIG) -> None:
    assert process.stdin is not None
    process.stdin.write(content)
    process.stdin.close()


# ---- what needs no agent


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


# ---- stdin


def test_a_configuration_of_one_mebibyte_goes_through(launcher: Launcher) -> None:
    config = CONFIG + b" " * (1024 * 1024 - len(CONFIG))
    with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
        assert launcher.run("ADD", config).status == 0
        assert agent.call().request.stdin == config


def test_a_larger_configuration_is_refused(launcher: Launcher) -> None:
    error = launcher.run("ADD", CONFIG + b" " * (1024 * 1024)).error

    assert (error["code"], error["msg"]) == (6, "configuration on stdin too large")
    assert error["cniVersion"] == "0.4.0"


def test_stdin_that_cannot_be_read_is_an_error(launcher: Launcher) -> None:
    directory = os.open("/", os.O_RDONLY)
    try:
        with ended(launcher.start("ADD", stdin=directory)) as process:
            stdout, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        os.close(directory)

    assert process.returncode == 1
    assert json.loads(stdout)["code"] == 5


def closing(launcher: Launcher, redirection: str) -> list[str]:
    return ["/bin/sh", "-c", f'exec "$0" {redirection}', launcher.binary]


def test_a_closed_stdin_is_an_error(launcher: Launcher) -> None:
    done = subprocess.run(
        closing(launcher, "<&-"),
        env=launcher.environment("ADD"),
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert Done(done.returncode, done.stdout, done.stderr).error["code"] == 5


def test_a_closed_stdout_is_not_taken_for_the_socket(launcher: Launcher) -> None:
    with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
        done = subprocess.run(
            closing(launcher, ">&- 2>&-"),
            env=launcher.environment("ADD"),
            input=CONFIG,
            timeout=TIMEOUT_S,
            check=False,
        )
        call = agent.call()

    assert done.returncode == 1
    assert call.request.stdin == CONFIG
    assert not call.acknowledged


def test_stdin_that_is_never_closed_is_an_error_after_a_while(launcher: Launcher) -> None:
    with ended(launcher.start("ADD")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(CONFIG)
        process.stdin.flush()
        error = json.loads(process.stdout.read())

    assert process.returncode == 1
    assert error["code"] == 5
    assert error["cniVersion"] == "0.4.0"


# ---- the environment and the namespace


def test_the_agent_gets_the_call_as_the_runtime_made_it(launcher: Launcher) -> None:
    environment = launcher.environment("ADD", CNI_ARGS="K8S_POD_NAME=web;IgnoreUnknown=1", HOME="")
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
        launcher.execute(environment, CONFIG, name="/opt/cni/bin/isthmus-ipam")
        request = agent.call().request
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    own = os.stat("/proc/self/ns/net")
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    assert request.environment == environment
    assert (request.program, request.stdin) == ("isthmus-ipam", CONFIG)
    assert before <= request.started_ns <= after
    assert request.boot_id == boot_id
    assert request.caller_netns == (own.st_dev, own.st_ino)


@pytest.mark.parametrize("size", [200_000, 300_000])
def test_a_huge_environment_is_cut_down_to_what_matters(launcher: Launcher, size: int) -> None:
    needed = launcher.environment("ADD", PATH="/bin", TRACEPARENT="t", TRACESTATE="s", BAGGAGE="b")
    bulk = {f"BULK_{part}": "x" * (size // 4) for part in range(4)}
    with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
        assert launcher.execute({**bulk, **needed}, CONFIG, name="isthmus").status == 0
        arrived = agent.call().request.environment

    kept = {name: value for name, value in needed.items() if not name.startswith("ISTHMUS_")}
    assert arrived == ({**bulk, **needed} if size < 256 * 1024 else kept)


def test_more_than_256_kib_of_what_matters_is_refused(launcher: Launcher) -> None:
    bulk = {f"CNI_BULK_{part}": "x" * 100_000 for part in range(3)}
    error = launcher.run("ADD", CONFIG, **bulk).error

    assert (error["code"], error["msg"]) == (4, "environment too large")


@pytest.mark.parametrize("kind", ["namespace", "link to it", "file", "fifo", "directory"])
def test_whatever_can_be_opened_as_the_namespace_goes_along(launcher: Launcher, kind: str) -> None:
    path = launcher.directory / "netns"
    match kind:
        case "namespace":
            path = Path("/proc/self/ns/net")
        case "link to it":
            path.symlink_to("/proc/self/ns/net")
        case "file":
            path.touch()
        case "fifo":
            os.mkfifo(path)
        case _:
            path.mkdir()
    with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
        assert launcher.run("ADD", CNI_NETNS=str(path)).status == 0
        call = agent.call()

    found = path.stat()
    assert call.netns == (found.st_dev, found.st_ino)
    assert call.request.netns_errno == 0


@pytest.mark.parametrize(("kind", "number"), [("absent", 2), ("dangling", 2), ("below a file", 20)])
def test_why_the_namespace_cannot_be_opened_goes_along(
    launcher: Launcher, kind: str, number: int
) -> None:
    path = launcher.directory / "netns"
    if kind == "dangling":
        path.symlink_to(launcher.directory / "nowhere")
    elif kind == "below a file":
        path.touch()
        path /= "net"
    with FakeAgent(launcher.socket, answering(Response(0))) as agent:
        assert launcher.run("DEL", CNI_NETNS=str(path)).status == 0
        call = agent.call()

    assert call.netns is None
    assert call.request.netns_errno == number


def test_a_namespace_that_is_not_set_is_no_error(launcher: Launcher) -> None:
    with FakeAgent(launcher.socket, answering(Response(0))) as agent:
        assert launcher.run("DEL", CNI_NETNS="").status == 0
        call = agent.call()

    assert (call.netns, call.request.netns_errno) == (None, 0)


# ---- the answer


@pytest.mark.parametrize("response", [Response(0, b'{"ips":[]}'), Response(1, b"{}"), Response(0)])
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_status_and_document_come_back_and_are_acknowledged(
    launcher: Launcher, response: Response, piece: int
) -> None:
    with FakeAgent(launcher.socket, answering(response, piece=piece)) as agent:
        done = launcher.run("ADD")

        assert (done.status, done.stdout, done.stderr) == (response.status, response.stdout, b"")
        assert agent.call().acknowledged


def test_an_answer_of_two_mebibytes_comes_back_whole(launcher: Launcher) -> None:
    document = b'"' + b"x" * (2 * 1024 * 1024 - 2) + b'"'
    with FakeAgent(launcher.socket, answering(Response(0, document))) as agent:
        assert launcher.run("ADD").stdout == document
        assert agent.call().acknowledged


def test_an_answer_without_a_reader_is_not_acknowledged(launcher: Launcher) -> None:
    read, write = os.pipe()
    with (
        FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent,
        ended(launcher.start("ADD", stdout=write)) as process,
    ):
        os.close(write)
        os.close(read)
        close_stdin(process)
        call = agent.call()

    assert process.returncode == 1
    assert not call.acknowledged


def test_an_answer_whose_reader_is_stuck_is_not_acknowledged(launcher: Launcher) -> None:
    with (
        FakeAgent(launcher.socket, answering(Response(0, b" " * 1_000_000))) as agent,
        ended(launcher.start("ADD")) as process,
    ):
        close_stdin(process)
        call = agent.call()

    assert process.returncode == 1
    assert not call.acknowledged


def test_a_launcher_killed_while_it_waits_leaves_without_acknowledging(launcher: Launcher) -> None:
    with FakeAgent(launcher.socket, hanging) as agent, ended(launcher.start("ADD")) as process:
        close_stdin(process)
        assert agent.taken.wait(TIMEOUT_S)
        process.kill()
        call = agent.call()

    assert process.returncode == -signal.SIGKILL
    assert not call.acknowledged


# ---- no agent, or one that is of no use


@pytest.mark.parametrize(("command", "code"), OTHERS)
def test_without_an_agent_the_error_names_the_socket_and_a_remedy(
    launcher: Launcher, command: str, code: int
) -> None:
    error = launcher.run(command).error

    assert error["code"] == code
    assert error["msg"] == f"no agent accepts calls on {launcher.socket}"
    assert error["details"] == (
        "No such file or directory; is the agent running? systemctl status isthmus-agent"
    )
    assert error["cniVersion"] == "0.4.0"
    assert launcher.spooled() == []


USELESS = {
    "hangs": hanging,
    "closes at once": saying(b"", read=1),
    "closes after the request": saying(b""),
    "dies in the header": saying(b"isth\0\0"),
    "dies in the document": saying(b"isth\0\0\0\0\x05\0\0\0{"),
    "talks nonsense": saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "claims too much": saying(b"isth\0\0\0\0\xff\xff\xff\xff"),
    "claims a status that exit cannot have": saying(b"isth\0\1\0\0\0\0\0\0"),
}


@pytest.mark.parametrize("behaviour", USELESS.values(), ids=USELESS.keys())
@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("STATUS", 50)])
def test_an_agent_that_gives_no_answer_is_an_error(
    launcher: Launcher, command: str, code: int, behaviour: Any
) -> None:
    with FakeAgent(launcher.socket, behaviour):
        error = launcher.run(command).error

    assert error["code"] == code
    assert str(launcher.socket) in error["msg"]
    assert "systemctl status isthmus-agent" in error["details"]


@pytest.mark.parametrize("behaviour", USELESS.values(), ids=USELESS.keys())
def test_a_deletion_outlives_an_agent_that_gives_no_answer(
    launcher: Launcher, behaviour: Any
) -> None:
    with FakeAgent(launcher.socket, behaviour):
        done = launcher.run("DEL")

    assert (done.status, done.stdout, done.stderr) == (0, b"", b"")
    assert len(Spool(launcher.spool).pending()) == 1


def test_an_agent_that_refuses_is_quoted(launcher: Launcher) -> None:
    refusal = b'{"code":11,"msg":"protocol version 2 is not supported, only 1 is"}'
    with FakeAgent(launcher.socket, answering(Response(REFUSED, refusal))):
        done = launcher.run("ADD")

    assert (done.status, done.stdout) == (1, refusal)


def test_a_refusal_is_read_even_when_the_agent_took_only_the_header(launcher: Launcher) -> None:
    refusal = saying(b"isth\x4b\0\0\0\x02\0\0\0{}", read=92)
    with FakeAgent(launcher.socket, refusal):
        done = launcher.run("ADD", CONFIG + b" " * 1_000_000)

    assert (done.status, done.stdout) == (1, b"{}")


def test_a_deletion_outlives_an_agent_that_refuses(launcher: Launcher) -> None:
    with FakeAgent(launcher.socket, answering(Response(REFUSED, b"{}"))):
        done = launcher.run("DEL")

    assert (done.status, done.stdout) == (0, b"")
    assert len(launcher.spooled()) == 1


def test_an_agent_that_starts_late_is_waited_for(launcher: Launcher) -> None:
    def sleeps() -> int:
        fields = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").split()
        return int(fields[fields.index("voluntary_ctxt_switches:") + 1])

    with ended(launcher.start("ADD")) as process:
        before = sleeps()
        close_stdin(process)
        while sleeps() < before + 3:
            assert process.poll() is None
        with FakeAgent(launcher.socket, answering(Response(0, b"{}"))) as agent:
            assert agent.call().acknowledged

    assert process.returncode == 0


@contextmanager
def full_backlog(path: Path) -> Iterator[tuple[socket.socket, list[socket.socket]]]:
    """A listener that accepts nothing and has no room for another connection."""
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        try:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(path))
        except BlockingIOError:
            yield listener, waiting
        finally:
            for each in waiting:
                each.close()


def test_a_full_queue_of_the_socket_is_an_agent_away(launcher: Launcher) -> None:
    with full_backlog(launcher.socket):
        error = launcher.run("ADD").error
        deleted = launcher.run("DEL")

    assert error["code"] == 11
    assert error["details"].startswith("Resource temporarily unavailable")
    assert (deleted.status, len(launcher.spooled())) == (0, 1)


def test_a_deletion_waits_for_room_in_the_queue_of_the_socket(launcher: Launcher) -> None:
    with (
        full_backlog(launcher.socket) as (listener, waiting),
        ended(launcher.start("DEL")) as process,
    ):
        close_stdin(process)
        for _ in waiting[:-1]:
            listener.accept()[0].close()
        listener.settimeout(TIMEOUT_S)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(TIMEOUT_S)
            connection.sendall(encode_response(Response(0)))
            while connection.recv(4096):
                pass

    assert process.returncode == 0
    assert launcher.spooled() == []


def test_a_socket_path_too_long_is_an_error(launcher: Launcher) -> None:
    error = launcher.run("ADD", ISTHMUS_SOCKET="/" + "x" * 200).error

    assert error["code"] == 11
    assert "name too long" in error["details"]


# ---- deletions kept for later


@pytest.mark.parametrize("socket_left", [False, True])
def test_a_deletion_without_an_agent_is_kept_for_it(launcher: Launcher, socket_left: bool) -> None:
    if socket_left:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(launcher.socket))
    done = launcher.run("DEL", name="isthmus-ipam", CNI_NETNS="/nowhere")
    (entry,) = Spool(launcher.spool).pending()

    assert (done.status, done.stdout, done.stderr) == (0, b"", b"")
    assert entry.request.environment == launcher.environment("DEL", CNI_NETNS="/nowhere")
    assert (entry.request.program, entry.request.stdin) == ("isthmus-ipam", CONFIG)
    assert entry.request.netns_errno == 2
    started, rest = entry.path.name.split("-")
    assert (len(started), int(started)) == (20, entry.request.started_ns)
    assert rest.endswith(".del")
    assert stat.S_IMODE(launcher.spool.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry.path.stat().st_mode) == 0o600


def test_the_kept_frame_claims_no_descriptor(launcher: Launcher) -> None:
    launcher.run("DEL")
    (name,) = launcher.spooled()

    assert (launcher.spool / name).read_bytes()[12:16] == bytes(4)


def test_many_deletions_at_once_are_all_kept(launcher: Launcher) -> None:
    threads = [threading.Thread(target=launcher.run, args=("DEL",)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(Spool(launcher.spool).pending()) == 20


@pytest.mark.parametrize(
    "config", [b"", b"[]", b"null", b'{"name": "shop"', b"{]", b"{} {}", b'{"a": "}']
)
def test_a_deletion_that_could_never_be_done_is_not_kept(launcher: Launcher, config: bytes) -> None:
    assert launcher.run("DEL", config).error["code"] == 6
    assert launcher.spooled() == []


def test_a_spool_that_cannot_be_made_is_an_error_that_names_it(launcher: Launcher) -> None:
    path = launcher.directory / "absent" / "spool"
    error = launcher.run("DEL", ISTHMUS_SPOOL=str(path)).error

    assert (error["code"], error["msg"]) == (
        11,
        "the agent is away and the deletion cannot be kept",
    )
    assert error["details"] == f"{path}: create the directory: No such file or directory"


def test_a_spool_that_is_a_file_is_an_error_that_names_it(launcher: Launcher) -> None:
    launcher.spool.touch()
    error = launcher.run("DEL").error

    assert error["code"] == 11
    assert error["details"] == f"{launcher.spool}: open: Not a directory"


def test_a_spool_with_too_many_entries_is_an_error(launcher: Launcher) -> None:
    launcher.spool.mkdir()
    for number in range(MAX_ENTRIES):
        os.mknod(launcher.spool / f"{number}.del")
    error = launcher.run("DEL").error

    assert error["code"] == 11
    assert error["details"] == f"{launcher.spool}: count: 10000 deletions wait already"
    assert len(launcher.spooled()) == MAX_ENTRIES


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(launcher: Launcher) -> None:
    launcher.spool.mkdir()
    script = (
        "mount -t tmpfs -o size=16k none $ISTHMUS_SPOOL && "
        "{ head -c 65536 /dev/zero > $ISTHMUS_SPOOL/filler; "
        '"$0"; status=$?; ls -A $ISTHMUS_SPOOL >&2; exit $status; }'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, launcher.binary],
        env={"PATH": os.environ["PATH"], **launcher.environment("DEL")},
        input=CONFIG,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    error = Done(done.returncode, done.stdout, done.stderr).error

    assert error["code"] == 11
    assert error["details"] == f"{launcher.spool}: write: No space left on device"
    assert done.stderr.split()[-1] == b"filler"


# ---- the standalone program


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
