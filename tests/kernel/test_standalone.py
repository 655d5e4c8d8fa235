"""The frozen program on a host without Python, by itself and beside an agent.

Every run has a mount namespace of its own in which all interpreters, their libraries and this
tree's environment are hidden.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import pytest

from agent.config import AgentConfig
from cni.spool import Spool
from tests.kernel.agents import NETWORK, Machine, Pod, addresses, until
from tests.kernel.launcher.process import Done, ended
from tests.kernel.sockets import inside

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
STANDALONE = {**NETWORK, "standalone": True}
FORMS = ("isthmus/isthmus", "isthmus-onefile")
TIMEOUT_S = 60
APART = ("/usr/bin/unshare", "--mount", "--propagation", "private")
# Mounts nothing over a directory and an empty file over a program.
HIDE = """
for directory in $DIRECTORIES; do /usr/bin/mount -t tmpfs none "$directory" || exit 99; done
for program in $PROGRAMS; do /usr/bin/mount --bind /dev/null "$program" || exit 99; done
unset DIRECTORIES PROGRAMS
exec "$@"
"""


def interpreters() -> dict[str, str]:
    """What has to be hidden, as HIDE reads it."""
    directories = {sys.prefix, *glob("/usr/lib/python3*"), *glob("/usr/local/lib/python3*")}
    if not sys.base_prefix.startswith("/usr"):
        directories.add(sys.base_prefix)
    # Others that somebody installed beside the distribution's, and their shims.
    directories |= {
        folder
        for folder in os.environ["PATH"].split(":")
        if not folder.startswith(("/usr/", "/bin", "/sbin")) and glob(f"{folder}/python3*")
    }
    # One that lies in another is hidden with it.
    outer = [
        d for d in directories if not any(Path(d).is_relative_to(o) for o in directories - {d})
    ]
    programs = {
        os.path.realpath(program)
        for folder in ("/usr/bin", "/usr/local/bin")
        for program in glob(f"{folder}/python3*")
    }
    return {"DIRECTORIES": " ".join(outer), "PROGRAMS": " ".join(filter(os.path.isfile, programs))}


@dataclass(frozen=True, slots=True)
class Bare:
    """A machine without Python and without an agent; *program* is the frozen program.

    `direct` runs it as a runtime would, `call` runs the launcher, which finds it.
    """

    machine: Machine
    program: Path

    @property
    def config(self) -> AgentConfig:
        return self.machine.config

    def link(self, name: str) -> Path:
        """The program under the name of a plugin."""
        path = self.machine.state / "bin" / name
        path.parent.mkdir(exist_ok=True)
        if not path.is_symlink():
            path.symlink_to(self.program)
        return path

    def environment(self, verb: str, pod: Pod | None = None, **variables: str) -> dict[str, str]:
        config = str(self.machine.state / "agent.toml")
        return self.machine.environment(verb, pod, ISTHMUS_CONFIG=config, **variables)

    def start(
        self,
        argv: Sequence[str | Path],
        environment: Mapping[str, str] | Mapping[bytes, bytes],
        stdin: int = subprocess.PIPE,
        stdout: int = subprocess.PIPE,
    ) -> subprocess.Popen[bytes]:
        """Begin *argv* where there is no Python."""
        hidden = {os.fsencode(k): os.fsencode(v) for k, v in interpreters().items()}
        env = {os.fsencode(k): os.fsencode(v) for k, v in environment.items()}
        with inside(self.machine.host):
            return subprocess.Popen(
                [*APART, "/bin/sh", "-c", HIDE, "hide", *map(str, argv)],
                env=env | hidden,
                stdin=stdin,
                stdout=stdout,
                stderr=stdout,
            )

    def run(
        self,
        argv: Sequence[str | Path],
        environment: Mapping[str, str] | Mapping[bytes, bytes],
        stdin: bytes = b"",
    ) -> Done:
        process = self.start(argv, environment)
        with ended(process):
            stdout, stderr = process.communicate(stdin, timeout=TIMEOUT_S)
        return Done(process.returncode, stdout or b"", stderr or b"")

    def direct(
        self,
        verb: str,
        pod: Pod | None = None,
        *,
        network: Mapping[str, Any] = STANDALONE,
        stdin: bytes | None = None,
        name: str = "isthmus",
        **variables: str,
    ) -> Done:
        environment = self.environment(verb, pod, **variables)
        return self.run([self.link(name)], environment, self.machine.stdin(network, stdin))

    def call(
        self,
        verb: str,
        pod: Pod | None = None,
        *,
        network: Mapping[str, Any] = STANDALONE,
        stdin: bytes | None = None,
        name: str = "isthmus",
        **variables: str,
    ) -> Done:
        launcher = self.machine.state / "opt" / name
        launcher.parent.mkdir(exist_ok=True)
        if not launcher.is_symlink():
            launcher.symlink_to(self.machine.launcher.binary)
        environment = self.environment(verb, pod, **variables)
        return self.run([launcher], environment, self.machine.stdin(network, stdin))

    def spooled(self) -> int:
        return Spool(self.config.spool_dir).waiting()


def made_bare(machine: Machine, program: Path) -> Bare:
    machine.launcher.standalone.symlink_to(program)
    (machine.state / "agent.toml").write_text(
        f'state_dir = "{machine.state}"\nsocket = "{machine.launcher.socket}"\n'
        "cooldown_s = 1\ngrace_s = 0.5\nreconcile_interval_s = 0.5\n"
    )
    return Bare(machine, program)


@pytest.fixture(params=FORMS)
def host(machine: Machine, dist: Path, request: pytest.FixtureRequest) -> Bare:
    """One for each form of the program."""
    return made_bare(machine, dist / request.param)


@pytest.fixture
def folder(machine: Machine, dist: Path) -> Bare:
    """One with the folder, where the form makes no difference."""
    return made_bare(machine, dist / FORMS[0])


@pytest.fixture(params=["direct", "launcher"])
def way(request: pytest.FixtureRequest) -> Callable[..., Done]:
    """How a runtime reaches the program."""
    return {"direct": Bare.direct, "launcher": Bare.call}[request.param]


@pytest.fixture
def pod(machine: Machine) -> Pod:
    return machine.pod()


def test_no_python_is_left_to_be_found(folder: Bare) -> None:
    path = {"PATH": os.environ["PATH"]}
    found = folder.run(["/bin/sh", "-c", "python3 -c 1 || exit 42"], path)

    assert found.status == 42


def test_version_and_a_wrong_environment_are_answered_without_stdin(host: Bare) -> None:
    version = host.run([host.link("isthmus")], {"CNI_COMMAND": "VERSION"})
    wrong = host.run([host.link("isthmus")], {"CNI_COMMAND": "ADD"})
    about = host.run([host.link("isthmus")], {"CNI_COMMAND": ""})

    assert json.loads(version.stdout)["supportedVersions"][-1] == "1.1.0"
    assert json.loads(wrong.stdout)["code"] == 4
    assert (about.status, about.stdout) == (0, b"")


def test_an_attachment_lives_from_add_to_del(
    host: Bare, way: Callable[..., Done], pod: Pod
) -> None:
    assert way(host, "STATUS").status == 0
    added = way(host, "ADD", pod)
    (address,) = addresses(added)

    assert pod.addresses() == [address]
    assert host.machine.host.pings(address)
    kept = {**STANDALONE, "prevResult": json.loads(added.stdout)}
    assert way(host, "CHECK", pod, network=kept).status == 0
    valid = [{"containerID": pod.container_id, "ifname": "eth0"}]
    assert way(host, "GC", network={**STANDALONE, "cni.dev/valid-attachments": valid}).status == 0
    assert way(host, "CHECK", pod, network=kept).status == 0
    assert way(host, "DEL", pod).status == 0
    assert host.machine.leftovers() == []
    assert way(host, "CHECK", pod, network=kept).status == 1


def test_gc_ends_what_is_not_valid(folder: Bare, pod: Pod) -> None:
    addresses(folder.direct("ADD", pod))
    collected = folder.direct("GC", network={**STANDALONE, "cni.dev/valid-attachments": []})

    assert collected.status == 0
    assert folder.machine.leftovers() == []


def test_it_is_the_ipam_plugin_by_that_name(host: Bare, way: Callable[..., Done], pod: Pod) -> None:
    network = {
        "cniVersion": "1.0.0",
        "name": "shop",
        "type": "bridge",
        "standalone": True,
        "ipam": {"type": "isthmus-ipam", "subnet": "10.7.0.0/24"},
    }
    added = way(host, "ADD", pod, network=network, name="isthmus-ipam")
    removed = way(host, "DEL", pod, network=network, name="isthmus-ipam")

    assert [one["address"] for one in json.loads(added.stdout)["ips"]] == ["10.7.0.2/24"]
    assert pod.addresses() == []
    assert (removed.status, removed.stdout) == (0, b"")


def test_a_running_agent_is_asked_instead(folder: Bare, pod: Pod) -> None:
    folder.machine.start()
    (address,) = addresses(folder.call("ADD", pod))

    assert folder.machine.records() == {pod.container_id: ("held", (address,))}


def test_beside_an_agent_an_add_fails_and_a_del_is_kept_for_it(folder: Bare, pod: Pod) -> None:
    folder.machine.start()
    addresses(folder.call("ADD", pod))
    refused = folder.direct("ADD", folder.machine.pod())
    deleted = folder.direct("DEL", pod)

    assert refused.error["code"] == 11
    assert str(folder.config.lock) in refused.error["details"]
    assert (deleted.status, deleted.stdout) == (0, b"")
    until(lambda: folder.machine.leftovers() == [], "the agent carries the deletion out")


def test_a_hung_agent_keeps_the_lock_and_a_del_is_kept(folder: Bare, pod: Pod) -> None:
    folder.machine.start()
    addresses(folder.call("ADD", pod))
    folder.machine.pause()
    answers = [folder.call("ADD", folder.machine.pod()), folder.call("STATUS")]
    deleted = folder.call("DEL", pod)
    waiting = folder.spooled()
    folder.machine.resume()

    assert [answer.error["code"] for answer in answers] == [11, 50]
    assert (deleted.status, waiting) == (0, 1)
    until(lambda: folder.machine.leftovers() == [], "the agent carries the deletion out")


def test_deletions_that_wait_are_carried_out_by_the_next_call(folder: Bare, pod: Pod) -> None:
    addresses(folder.call("ADD", pod))
    assert folder.call("DEL", pod, network=NETWORK).status == 0  # nobody does it yet
    waiting = folder.spooled(), pod.addresses()
    assert folder.call("STATUS").status == 0

    assert waiting[0] == 1
    assert waiting[1]
    assert folder.machine.leftovers() == []


def test_what_a_writer_that_died_left_in_the_spool_is_removed(folder: Bare) -> None:
    folder.config.spool_dir.mkdir()
    for age_s in (0, 3600):
        left = folder.config.spool_dir / f".tmp-{age_s}"
        left.touch()
        os.utime(left, (left.stat().st_mtime - age_s,) * 2)
    assert folder.call("STATUS").status == 0

    assert folder.machine.launcher.spooled() == [".tmp-0"]


def test_calls_at_once_wait_for_each_other(folder: Bare) -> None:
    pods = [folder.machine.pod() for _ in range(3)]
    running = [
        folder.start([folder.link("isthmus")], folder.environment("ADD", pod)) for pod in pods
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write(json.dumps(STANDALONE).encode())
        process.stdin.close()
        process.stdin = None
    found: list[str] = []
    for process in running:
        with ended(process):
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        found += addresses(Done(process.returncode, stdout, stderr))

    assert len(set(found)) == len(pods)
    assert [one for pod in pods for one in pod.addresses()] == found


def test_a_dead_sandbox_gives_its_address_back(folder: Bare, pod: Pod) -> None:
    network = {**STANDALONE, "ipam": {"type": "isthmus", "subnet": "10.9.0.0/30"}}
    addresses(folder.direct("ADD", pod, network=network))
    folder.machine.remove(pod)
    until(lambda: folder.machine.links() == [], "the pair goes with its namespace")
    other = folder.machine.pod()

    # The first call finds it dead; one after the cool-down gives its address away.
    until(lambda: folder.direct("ADD", other, network=network).status == 0, "it is given again")
    assert other.addresses() == ["10.9.0.2"]


@pytest.mark.parametrize(
    ("stdin", "code"),
    [(b"", 6), (b"{", 6), (b"[]", 6), (b" " * (2 << 20), 6), (b"[" * 500_000, 6), (b"{}", 7)],
    ids=["empty", "cut", "list", "huge", "deep", "nameless"],
)
def test_a_configuration_that_is_none_is_one_error(
    folder: Bare, pod: Pod, stdin: bytes, code: int
) -> None:
    done = folder.direct("ADD", pod, stdin=stdin)

    assert (done.status, json.loads(done.stdout)["code"]) == (1, code)
    assert folder.machine.leftovers() == []


def test_closed_descriptors_are_errors_and_leave_nothing(host: Bare, pod: Pod) -> None:
    program = str(host.link("isthmus"))
    environment = host.environment("ADD", pod)
    stdin = json.dumps(STANDALONE).encode()
    without_stdin = host.run(["/bin/sh", "-c", 'exec "$0" <&-', program], environment)
    without_stdout = host.run(["/bin/sh", "-c", 'exec "$0" >&-', program], environment, stdin)
    full = host.run(["/bin/sh", "-c", 'exec "$0" >/dev/full', program], environment, stdin)

    assert json.loads(without_stdin.stdout)["code"] == 5
    assert (without_stdout.status, full.status) == (1, 1)
    assert host.machine.leftovers() == []


def test_variables_may_be_anything(host: Bare, pod: Pod) -> None:
    program = [host.link("isthmus")]
    stdin = json.dumps(STANDALONE).encode()
    usual = {os.fsencode(k): os.fsencode(v) for k, v in host.environment("ADD", pod).items()}
    odd = {
        b"LC_ALL": b"C",
        b"ISTHMUS_STARTED_NS": b"-1",
        b"LD_LIBRARY_PATH": b"/nowhere",
        b"PYTHONHOME": b"/nowhere",
        b"PYTHONPATH": b"\xff",
        b"CNI_ARGS": "IgnoreUnknown=1;WHO=caffè".encode(),
    }
    refused = host.run(program, usual | odd | {b"CNI_ARGS": b"A=\xff"}, stdin)
    long = host.run(program, usual | {b"CNI_IFNAME": b"e" * 100_000}, stdin)
    taken = host.run(program, usual | odd, stdin)

    assert json.loads(refused.stdout)["code"] == 4
    assert json.loads(long.stdout)["code"] == 4
    assert len(addresses(taken)) == 1


def test_a_fifo_for_a_namespace_hangs_nothing(folder: Bare, pod: Pod, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    done = folder.direct("ADD", pod, CNI_NETNS=str(tmp_path / "fifo"))

    assert json.loads(done.stdout)["code"] == 4


def test_without_nft_an_add_says_so_and_leaves_nothing(folder: Bare, pod: Pod) -> None:
    done = folder.direct("ADD", pod, PATH="/nowhere")
    error = json.loads(done.stdout)

    assert (done.status, error["code"]) == (1, 102)
    assert "nft" in error["msg"]
    assert folder.machine.links() == []


def test_without_nft_a_network_that_needs_none_goes_on(folder: Bare, pod: Pod) -> None:
    network = {**STANDALONE, "ipMasq": False}

    assert len(addresses(folder.direct("ADD", pod, network=network, PATH="/nowhere"))) == 1
    assert folder.direct("DEL", pod, network=network, PATH="/nowhere").status == 0
    assert folder.machine.links() == []


def test_the_doctor_says_that_nft_is_missing(folder: Bare, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    done = folder.run(
        [folder.program, "doctor", "--json", "--socket", folder.machine.launcher.socket],
        {"PATH": str(tools), "LC_ALL": "C.UTF-8"},
    )
    findings = json.loads(done.stdout)

    assert done.status == 1
    assert [
        finding["mend"] for finding in findings if finding["what"].startswith("nft cannot be used")
    ] == ["apt install nftables, and run this as root"]


@pytest.fixture
def frozen_agent(folder: Bare) -> Iterator[subprocess.Popen[bytes]]:
    """The agent from the frozen program, serving."""
    process = folder.start(
        [folder.program, "agent", "--config", folder.machine.state / "agent.toml"],
        {"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        until(folder.machine.launcher.socket.exists, "the agent serves")
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_agent_is_in_it_too(
    folder: Bare, frozen_agent: subprocess.Popen[bytes], pod: Pod
) -> None:
    (address,) = addresses(folder.call("ADD", pod))
    records = folder.machine.records()
    assert folder.call("DEL", pod).status == 0
    frozen_agent.terminate()

    assert records == {pod.container_id: ("held", (address,))}
    assert folder.machine.leftovers() == []
    assert frozen_agent.wait(TIMEOUT_S) == 0
