"""A machine of its own for one test: namespaces of network, mounts, processes.

        host                         outside
        192.0.2.1 ────── uplink ──── 192.0.2.2
        2001:db8::1                  2001:db8::2

The host's default routes lead outside, where nothing is routed back: who is to be answered from
there must have been masqueraded.  /run, /var/lib and /opt are empty; everything else is the
machine's own, so that directories of the test have the same names in there.  The first process
of the namespaces ends with the pipe on its standard input, hence with the test whatever happens;
then the kernel kills all others and nothing is left.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "build" / "peers" / "bin"

NO_PLUGINS = ("cnitool", "containerd", "containerd-shim-runc-v2", "cri-client", "ctr")

HOST = "192.0.2.1"
OUTSIDE = "192.0.2.2"

# SIGCHLD stays ignored across exec: orphans of dead daemons are reaped by the kernel.
FIRST_PROCESS = """
set -eu
for directory in /run /var/lib /opt; do mount -t tmpfs tmpfs $directory; done
mkdir -p /run/netns
ip link set lo up
ip netns add outside
ip link add uplink type veth peer name uplink netns outside
ip address add 192.0.2.1/24 dev uplink
ip address add 2001:db8::1/64 dev uplink nodad
ip link set uplink up
ip netns exec outside sh -c '
    ip link set lo up
    ip address add 192.0.2.2/24 dev uplink
    ip address add 2001:db8::2/64 dev uplink nodad
    ip link set uplink up'
ip route add default via 192.0.2.2
ip -6 route add default via 2001:db8::2
echo up
trap '' CHLD
exec cat
"""


@dataclass
class Service:
    """A long-running program in a host; *pid* is its number there."""

    host: "Host"
    process: subprocess.Popen[bytes]
    pid: int
    log: Path

    def signal(self, number: signal.Signals) -> None:
        self.host.run("kill", f"-{number}", str(self.pid))
        if number == signal.SIGKILL:
            self.process.wait(10)

    def wait_until(self, ready: Callable[[], bool], seconds: float = 30) -> None:
        """Ask *ready* until it is true; AssertionError with the log when time or process ends."""
        deadline = time.monotonic() + seconds
        while not ready():
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
            raise AssertionError(f"not ready: {self.log.read_text()[-4000:]}")


@dataclass
class Host:
    """Runs programs in the namespaces; *plugins* and *networks* are what runtimes are given.

    *environment* is added to that of every program: plugins inherit it through the runtimes.
    """

    directory: Path
    holder: subprocess.Popen[bytes]
    environment: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def plugins(self) -> Path:
        return self.directory / "bin"

    @property
    def networks(self) -> Path:
        return self.directory / "net.d"

    def run(
        self,
        *argv: str | Path,
        stdin: str = "",
        check: bool = True,
        timeout: float = 60,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; AssertionError with both outputs where *check* and it fails."""
        done = subprocess.run(
            self._inside(argv),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env=self._environment(environment),
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def outside(self, *argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("ip", "netns", "exec", "outside", *argv, check=check)

    def start(self, name: str, *argv: str | Path) -> Service:
        """Start a program whose output goes to a file named for it."""
        log = self.directory / f"{name}.log"
        pid_file = self.directory / f"{name}.pid"
        pid_file.unlink(missing_ok=True)
        announce = 'echo $$ > "$0.new"; mv "$0.new" "$0"; exec "$@"'
        with log.open("ab") as output:
            process = subprocess.Popen(
                self._inside(("sh", "-c", announce, pid_file, *argv)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment(None),
            )
        self.started.append(process)
        service = Service(self, process, 0, log)
        service.wait_until(pid_file.exists)
        service.pid = int(pid_file.read_text())
        return service

    def install(self, source: Path, name: str = "") -> None:
        """Make *source* a plugin called *name*, by a link: the program itself is not copied."""
        link = self.plugins / (name or source.name)
        link.unlink(missing_ok=True)
        link.symlink_to(source)

    def install_peers(self) -> None:
        """Install every reference plugin."""
        for program in PEERS.glob("[!.]*"):
            if program.name not in NO_PLUGINS:
                self.install(program)

    def _inside(self, argv: tuple[str | Path, ...]) -> list[str]:
        namespaces = f"/proc/{self.holder.pid}/ns"
        return [
            "nsenter",
            f"--net={namespaces}/net",
            f"--mount={namespaces}/mnt",
            f"--pid={namespaces}/pid_for_children",
            *map(str, argv),
        ]

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        own = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "LANG": "C.UTF-8"}
        return own | self.environment | dict(more or {})


@contextmanager
def running_host(directory: Path) -> Iterator[Host]:
    """Make the namespaces, and end with them everything that runs there."""
    unshare = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    holder = subprocess.Popen(
        (*unshare, "sh", "-c", FIRST_PROCESS), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    host = Host(directory, holder)
    try:
        if holder.stdout.readline() != b"up\n":
            raise AssertionError("the host's namespaces could not be made; see standard error")
        host.plugins.mkdir()
        host.networks.mkdir()
        yield host
    finally:
        holder.stdin.close()
        for process in (holder, *host.started):
            process.wait(30)
        holder.stdout.close()
        remove_control_groups(cgroup_parent(host))


def cgroup_parent(host: Host) -> str:
    """Name of the control group that containers of *host* are made in."""
    return f"/isthmus-test-{os.getpid()}-{host.holder.pid}"


def remove_control_groups(name: str) -> None:
    """Remove what killed runtimes leave of control groups, which no namespace ends."""
    for hierarchy in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        top = hierarchy / name.lstrip("/")
        if top.is_dir():
            for group, _, _ in os.walk(top, topdown=False):
                Path(group).rmdir()


def busybox() -> Path:
    """The static busybox of Debian's busybox-static."""
    found = shutil.which("busybox", path="/bin:/usr/bin:/sbin")
    if found is None:
        raise AssertionError("busybox-static is not installed: run tools/setup.sh test")
    return Path(found)
