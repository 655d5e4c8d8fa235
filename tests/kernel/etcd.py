"""Real etcd clusters for tests: members that can be killed, stopped, restored and partitioned.

Every member is a process of its own, by default on loopback with free ports.  With *hosts* each
runs in its host's namespace, on the address given.  `V36` is another version than the system's.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ipam.tls import TLSFiles
from tests.certificates import Authority
from tests.kernel.agents import ROOT, until
from tests.kernel.conftest import Namespace
from tests.kernel.sockets import inside

READY_S = 30.0
# Where tools/peers/build.sh put etcd, etcdctl and etcdutl of 3.6; "" is the system's.
V36 = str(ROOT / "build/peers/bin")


@dataclass(frozen=True, slots=True)
class Host:
    """Where a process runs, and at which address it is reached there; None: where the test is."""

    address: str = "127.0.0.1"
    namespace: Namespace | None = None

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """For a block of this thread, and what it starts."""
        return inside(self.namespace) if self.namespace else contextlib.nullcontext()


@dataclass(slots=True, kw_only=True)
class Member:
    name: str
    host: Host
    client_port: int
    peer_port: int
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"{self.host.address}:{self.client_port}"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def peer_url(self) -> str:
        return f"http://{self.host.address}:{self.peer_port}"


@dataclass(slots=True, kw_only=True)
class Etcd:
    """One cluster; *server*: serve TLS to clients with that pair and demand *authority*'s.

    *observer* is where etcdctl is run; *programs* the directory of the programs, "" by PATH.
    """

    directory: Path
    members: tuple[Member, ...]
    quota_bytes: int = 0
    authority: Authority | None = None
    server: TLSFiles | None = None
    options: tuple[str, ...] = ()
    observer: Host = field(default_factory=Host)
    programs: str = ""
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(member.endpoint for member in self.members)

    @property
    def urls(self) -> tuple[str, ...]:
        """The endpoints as a client's configuration wants them."""
        scheme = "https" if self.server else "http"
        return tuple(f"{scheme}://{endpoint}" for endpoint in self.endpoints)

    def start(self, *numbers: int, wait: bool = True) -> None:
        """Start those members (none named: all that are not running); *wait* until they serve."""
        for number in numbers or range(len(self.members)):
            member = self.members[number]
            if member.process is None:
                self._spawn(member)
        if wait:
            self.wait(*numbers)

    def wait(self, *numbers: int) -> None:
        """Until each of those members (none named: all) answers a linearizable read."""
        for number in numbers or range(len(self.members)):
            endpoint = self.members[number].endpoint
            until(
                lambda endpoint=endpoint: self.is_healthy(endpoint),  # type: ignore[misc]
                f"etcd member {number} serves",
                timeout=READY_S,
            )

    def wait_for_port(self, number: int) -> None:
        """Until that member takes connections, whatever comes of them."""
        member = self.members[number]

        def is_open() -> bool:
            with self.observer.inside():
                one = socket.socket()
            with one:
                return one.connect_ex((member.host.address, member.client_port)) == 0

        until(is_open, f"etcd member {number} listens", timeout=READY_S)

    def is_healthy(self, endpoint: str) -> bool:
        # "permission denied" is an answer too: of a member that has a leader and wants a user.
        done = self.ctl("get", "health", endpoints=(endpoint,), check=False)
        return done.returncode == 0 or "user name is empty" in done.stderr

    def kill(self, number: int) -> None:
        """As a power cut of the process: -9, and gone when this returns."""
        member = self.members[number]
        if member.process is not None:
            member.process.send_signal(signal.SIGCONT)
            member.process.kill()
            member.process.wait(READY_S)
            member.process = None

    def pause(self, number: int) -> None:
        process = self._running(number)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self, number: int) -> None:
        self._running(number).send_signal(signal.SIGCONT)

    def leader(self) -> int | None:
        """The number of the member that leads, if one that answers says so."""
        for number, member in enumerate(self.members):
            if member.process is None:
                continue
            words = ("endpoint", "status", "-w", "json")
            done = self.ctl(*words, endpoints=(member.endpoint,), check=False)
            for one in json.loads(done.stdout) if done.returncode == 0 else ():
                if one["Status"].get("leader") == one["Status"]["header"]["member_id"]:
                    return number
        return None

    def snapshot(self, name: str = "snapshot.db") -> Path:
        """Save what the first running member has."""
        file = self.directory / name
        file.unlink(missing_ok=True)
        running = next(member for member in self.members if member.process is not None)
        self.ctl("snapshot", "save", str(file), endpoints=(running.endpoint,))
        return file

    def restore(self, file: Path, *, bump: int = 0) -> None:
        """Stop all, put every member back to *file*, and start.

        *bump*: raise the revision by so much, and call all before it compacted (etcd 3.6).
        """
        self.wipe()
        tool = "etcdutl" if self.programs else "etcdctl"
        raised = ["--bump-revision", str(bump), "--mark-compacted"] if bump else []
        for member in self.members:
            self._run(
                [
                    *(tool, "snapshot", "restore", str(file), "--name", member.name),
                    *("--data-dir", str(member.data), "--initial-cluster", self._initial()),
                    *("--initial-cluster-token", self.token),
                    *("--initial-advertise-peer-urls", member.peer_url, *raised),
                ]
            )
        self.start()

    def wipe(self, *, new_token: bool = False) -> None:
        """Stop all and delete their data; with *new_token* the next start is another cluster."""
        self.close()
        for member in self.members:
            shutil.rmtree(member.data, ignore_errors=True)
        if new_token:
            self.token = secrets.token_hex(8)

    def ctl(
        self, *argv: str, endpoints: Sequence[str] = (), user: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run etcdctl; *user* is NAME:PASSWORD."""
        scheme = "https" if self.server else "http"
        urls = ",".join(f"{scheme}://{one}" for one in endpoints or self.endpoints)
        options = ["--endpoints", urls, "--command-timeout", "5s"]
        if self.authority and self.server:
            options += ["--cacert", str(self.authority.file)]
            options += ["--cert", str(self.server.certificate), "--key", str(self.server.key)]
        if user:
            options += ["--user", user]
        return self._run(["etcdctl", *options, *argv], check=check)

    def close(self) -> None:
        for number in range(len(self.members)):
            self.kill(number)

    def _run(self, argv: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        # 3.6 warns of the variable that 3.4 wants.
        version = {} if self.programs else {"ETCDCTL_API": "3"}
        with self.observer.inside():
            done = subprocess.run(
                argv,
                executable=self._program(argv[0]),
                env={"PATH": os.environ["PATH"], **version},
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0 or not check, f"{argv}: {done.stderr}{done.stdout}"
        return done

    def _program(self, name: str) -> str:
        return f"{self.programs}/{name}" if self.programs else name

    def _running(self, number: int) -> subprocess.Popen[bytes]:
        process = self.members[number].process
        assert process is not None, f"member {number} is not running"
        return process

    def _initial(self) -> str:
        return ",".join(f"{member.name}={member.peer_url}" for member in self.members)

    def _spawn(self, member: Member) -> None:
        scheme = "https" if self.server else "http"
        url = f"{scheme}://{member.endpoint}"
        argv = [
            *("etcd", "--name", member.name, "--data-dir", str(member.data)),
            *("--listen-client-urls", url, "--advertise-client-urls", url),
            *("--listen-peer-urls", member.peer_url),
            *("--initial-advertise-peer-urls", member.peer_url),
            *("--initial-cluster", self._initial(), "--initial-cluster-token", self.token),
            *("--heartbeat-interval", "50", "--election-timeout", "500", "--logger", "zap"),
            *self.options,
        ]
        if self.quota_bytes:
            argv += ["--quota-backend-bytes", str(self.quota_bytes)]
        if self.authority and self.server:
            argv += [
                "--cert-file",
                str(self.server.certificate),
                "--key-file",
                str(self.server.key),
            ]
            argv += ["--client-cert-auth", "--trusted-ca-file", str(self.authority.file)]
        member.directory.mkdir(parents=True, exist_ok=True)
        with member.log.open("ab") as log, member.host.inside():
            member.process = subprocess.Popen(
                argv,
                executable=self._program("etcd"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"]},
                start_new_session=True,
            )


@contextlib.contextmanager
def running(
    directory: Path,
    count: int = 1,
    *,
    hosts: Sequence[Host] = (),
    tls: bool = False,
    quota_bytes: int = 0,
    options: Sequence[str] = (),
    observer: Host | None = None,
    programs: str = "",
) -> Iterator[Etcd]:
    """A cluster of *count* members that serve; killed, and its processes gone, afterwards."""
    hosts = hosts or [Host()] * count
    ports = iter(free_ports(2 * len(hosts)))
    authority = Authority(directory / "authority") if tls else None
    etcd = Etcd(
        directory=directory,
        members=tuple(
            Member(
                name=f"m{number}",
                host=host,
                client_port=next(ports),
                peer_port=next(ports),
                directory=directory / f"m{number}",
            )
            for number, host in enumerate(hosts)
        ),
        quota_bytes=quota_bytes,
        authority=authority,
        server=authority.issue(
            "etcd",
            common_name="etcd",
            hosts=["localhost", *{host.address for host in hosts}],
        )
        if authority
        else None,
        options=tuple(options),
        observer=observer or Host(),
        programs=programs,
    )
    try:
        etcd.start()
        yield etcd
    finally:
        etcd.close()


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has now; all held at once while looking, so they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
