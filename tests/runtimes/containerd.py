"""containerd 2 in a host of its own, driven through its CRI as a kubelet does."""

import json
import signal
import subprocess
from dataclasses import dataclass, field
from typing import Any

from tests.runtimes.host import PEERS, Host, Service, busybox, cgroup_parent
from tests.runtimes.images import archive

SOCKET = "/run/containerd/containerd.sock"
PAUSE = "localhost/pause:local"

# Containers are made by an unprivileged-enough runc: no negative oom_score_adj, no AppArmor.
CONFIGURATION = """
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.blockfile", "io.containerd.nri.v1.nri"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images']
snapshotter = "native"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "localhost/pause:local"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
disable_apparmor = true
enable_cdi = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{plugins}"]
conf_dir = "{networks}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"""


@dataclass
class Containerd:
    """Speaks CRI to containerd; messages are those of its .proto file as JSON."""

    host: Host
    service: Service = field(init=False)

    def start(self) -> None:
        """Start the daemon and wait until it answers; again after it was killed."""
        path = f"{PEERS}:{self.host.run('printenv', 'PATH').stdout.strip()}"
        program = PEERS / "containerd"
        configuration = self.host.directory / "containerd.toml"
        self.service = self.host.start(
            "containerd", "env", f"PATH={path}", program, "--config", configuration
        )
        self.service.wait_until(self._answers)

    def kill(self) -> None:
        self.service.signal(signal.SIGKILL)

    def call(self, method: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the response; AssertionError with the runtime's complaint where it refuses."""
        argv = (PEERS / "cri-client", SOCKET, method)
        response: dict[str, Any] = json.loads(
            self.host.run(*argv, stdin=json.dumps(request or {})).stdout
        )
        return response

    def refusal(self, method: str, request: dict[str, Any]) -> str:
        """Return the complaint of a call that the runtime must refuse."""
        argv = (PEERS / "cri-client", SOCKET, method)
        done = self.host.run(*argv, stdin=json.dumps(request), check=False)
        if done.returncode == 0:
            raise AssertionError(f"{method} succeeded: {done.stdout}")
        return done.stderr

    def network_ready(self) -> dict[str, Any]:
        """Return the condition NetworkReady of Status, which is what makes a node ready."""
        conditions = self.call("Status")["status"]["conditions"]
        return next(condition for condition in conditions if condition["type"] == "NetworkReady")

    def run_sandbox(self, name: str, **more: Any) -> str:
        """Return the id of a new sandbox; *more* is of PodSandboxConfig."""
        request = {"config": self.sandbox_config(name) | more}
        return str(self.call("RunPodSandbox", request)["pod_sandbox_id"])

    def begin_sandbox(self, name: str) -> subprocess.Popen[bytes]:
        """Ask for a sandbox without waiting for it."""
        request = self.host.directory / f"{name}.request.json"
        request.write_text(json.dumps({"config": self.sandbox_config(name)}))
        command = f"{PEERS}/cri-client {SOCKET} RunPodSandbox < {request}"
        return self.host.start(f"cri-{name}", "sh", "-c", command).process

    def remove_sandbox(self, sandbox: str) -> None:
        self.call("StopPodSandbox", {"pod_sandbox_id": sandbox})
        self.call("RemovePodSandbox", {"pod_sandbox_id": sandbox})

    def sandboxes(self) -> list[str]:
        return [item["id"] for item in self.call("ListPodSandbox").get("items", ())]

    def status(self, sandbox: str) -> dict[str, Any]:
        answer = self.call("PodSandboxStatus", {"pod_sandbox_id": sandbox})
        status: dict[str, Any] = answer["status"]
        return status

    def netns(self, sandbox: str) -> str:
        """Return the path of the sandbox's network namespace, as the host sees it."""
        request = {"pod_sandbox_id": sandbox, "verbose": True}
        info = json.loads(self.call("PodSandboxStatus", request)["info"]["info"])
        namespaces = info["runtimeSpec"]["linux"]["namespaces"]
        return next(str(item["path"]) for item in namespaces if item["type"] == "network")

    def sandbox_config(self, name: str) -> dict[str, Any]:
        return {
            "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"},
            "hostname": name,
            "log_directory": str(self.host.directory),
            "linux": {"cgroup_parent": cgroup_parent(self.host)},
        }

    def _answers(self) -> bool:
        argv = (PEERS / "cri-client", "-timeout", "2s", SOCKET, "Version")
        return self.host.run(*argv, check=False).returncode == 0


def start_containerd(host: Host) -> Containerd:
    """Write the configuration, start the daemon, import the image of its sandboxes."""
    text = CONFIGURATION.format(plugins=host.plugins, networks=host.networks)
    (host.directory / "containerd.toml").write_text(text)
    image = host.directory / "pause.tar"
    image.write_bytes(archive(PAUSE, busybox(), ("/bin/sleep", "2147483647")))
    containerd = Containerd(host)
    containerd.start()
    arguments = ("-n", "k8s.io", "images", "import", "--local", "--snapshotter", "native")
    host.run(PEERS / "ctr", "--address", SOCKET, *arguments, image)
    return containerd
