"""podman 4 with its CNI backend in a host of its own."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.runtimes.host import Host, busybox, cgroup_parent
from tests.runtimes.images import archive

LAST_WITH_CNI = 4
IMAGE = "localhost/busybox:local"

# vfs needs nothing of the kernel; the image is a few megabytes.
CONFIGURATION = """
[containers]
default_ulimits = ["nproc=1000:1000", "nofile=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{plugins}"]
network_config_dir = "{networks}"
"""


@dataclass(frozen=True)
class Podman:
    """Runs podman's commands; plugins and networks are the host's."""

    host: Host

    def __call__(self, *arguments: str, check: bool = True) -> str:
        """Return what the command prints; its complaint too where it may fail."""
        configuration = {"CONTAINERS_CONF": str(self.host.directory / "containers.conf")}
        done = self.host.run(
            *("podman", "--storage-driver", "vfs"),
            *arguments,
            environment=configuration,
            check=check,
        )
        return done.stdout if check else done.stdout + done.stderr

    def run(self, name: str, network: str, *options: str, command: tuple[str, ...]) -> None:
        """Start a detached container; *options* are those of `podman run`."""
        group = cgroup_parent(self.host)
        self(
            *("run", "--detach", "--name", name, "--network", network, "--cgroup-parent", group),
            *options,
            IMAGE,
            *command,
        )

    def inspect(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self("inspect", name))
        return found[0]


def start_podman(host: Host) -> Podman:
    """Write podman's configuration and give it its one image; skip where it knows no CNI."""
    version = host.run("podman", "--version").stdout.split()[-1]
    if int(version.partition(".")[0]) > LAST_WITH_CNI:
        pytest.skip(f"podman {version} is built without the CNI backend")
    text = CONFIGURATION.format(plugins=host.plugins, networks=host.networks)
    (host.directory / "containers.conf").write_text(text)
    image = host.directory / "busybox.tar"
    image.write_bytes(archive(IMAGE, busybox(), ()))
    podman = Podman(host)
    podman("load", "--quiet", "--input", str(image))
    return podman
