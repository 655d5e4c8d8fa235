"""The first process of a container engine's namespaces; all that runs there ends with it.

    unshare --net --mount --pid --fork --kill-child --mount-proc
      └─ this: overlays, then reaps orphans until docker ends
           └─ dockerd ── containerd ── shims ── nodes

What docker writes outside its own folders (sockets, keys, mount points that kind asks for) goes to
overlays in memory, so that nothing of it stays.  Executed as a file: standard library alone.
"""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

OVERLAID = ("/etc", "/opt", "/usr/lib")  # keys, containerd's folder, /lib/modules
FIT_RUNTIME = Path(__file__).with_name("fit_runtime.py")

# Networks of docker's, which exist in these namespaces only.
BRIDGE = "172.31.255.1"
POOL = "base=172.30.0.0/16,size=24"


def cover_machine(read_only: Iterable[str]) -> None:
    """Give these namespaces a /run of their own, and folders whose changes are forgotten.

    Mounts that are *read_only* become writable here.
    """
    for path in read_only:
        _mount("-o", "remount,bind,rw", path)
    _mount("-t", "tmpfs", "tmpfs", "/run")
    for folder in OVERLAID:
        changes = Path("/run/overlay" + folder)
        for part in ("upper", "work"):
            (changes / part).mkdir(parents=True)
        options = f"lowerdir={folder},upperdir={changes}/upper,workdir={changes}/work"
        _mount("-t", "overlay", "overlay", "-o", options, folder)


def dockerd(socket: str, data: str, group: str) -> list[str]:
    """Return docker's command line; *group* is the control group of its containers."""
    return [
        "/usr/sbin/dockerd",
        f"--host=unix://{socket}",
        f"--data-root={data}",
        "--exec-root=/run/docker",
        "--pidfile=/run/docker.pid",
        "--config-file=/run/daemon.json",
        f"--cgroup-parent={group}",
        "--exec-opt=native.cgroupdriver=cgroupfs",
        f"--add-runtime=fit={FIT_RUNTIME}",
        "--default-runtime=fit",
        "--storage-driver=overlay2",
        "--oom-score-adjust=0",
        f"--bip={BRIDGE}/24",
        # Nobody answers there, and says so at once: names of the world outside do not exist.
        f"--dns={BRIDGE}",
        f"--default-address-pool={POOL}",
    ]


def main() -> None:
    socket, data, group, *read_only = sys.argv[1:]
    cover_machine(read_only)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/run/daemon.json").write_text("{}")
    daemon = subprocess.Popen(dockerd(socket, data, group))
    while os.wait()[0] != daemon.pid:
        pass


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main()
