"""The node image: a Debian tree, Kubernetes, containerd, and all images that a new node needs."""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import mkdtemp

from tools.kind import debian, images, versions
from tools.kind.debian import NODE, TOOLS
from tools.kind.engine import Engine
from tools.kind.places import BUILD, FILES_OF_THE_NODE, PROGRAMS, digest_of
from tools.kind.progress import KindError, run, step

KUBERNETES = ("kubeadm", "kubectl", "kubelet")
PLUGINS = ("host-local", "loopback", "portmap", "ptp")
CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
DEBIANS_CONTAINERD = (*CONTAINERD, "containerd-shim", "containerd-shim-runc-v1")

# Units of a machine that a container does not have, or that would slow its start.
MASKED = (
    *("apt-daily-upgrade.timer", "apt-daily.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "fstrim.timer", "getty.target", "console-getty.service"),
    *("dev-hugepages.mount", "sys-fs-fuse-connections.mount", "sys-kernel-debug.mount"),
    *("sys-kernel-tracing.mount", "systemd-firstboot.service", "systemd-logind.service"),
    *("systemd-modules-load.service", "systemd-random-seed.service", "systemd-udevd.service"),
    *("systemd-udev-trigger.service", "systemd-update-utmp.service"),
)
LINKS = {
    "default.target": "/lib/systemd/system/multi-user.target",
    "multi-user.target.wants/containerd.service": "../containerd.service",
    "multi-user.target.wants/kubelet.service": "../kubelet.service",
    **dict.fromkeys(MASKED, "/dev/null"),
}
# Each container gets these of docker.
OF_THE_CONTAINER = ("etc/hostname", "etc/resolv.conf")

CHANGES = (
    'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]',
    "ENV container=docker",
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
)

# The node's own containerd, briefly, without what makes it a node's.
IMPORT = r"""
set -eu
cat > /run/import.toml <<'END'
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
END
containerd --config /run/import.toml > /run/import.log 2>&1 &
daemon=$!
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    ctr version > /dev/null 2>&1 && break
    [ "$attempt" != 10 ] || { cat /run/import.log; exit 1; }
    sleep 0.5
done
c() { ctr --namespace k8s.io "$@"; }
c images import --no-unpack --all-platforms /run/images.tar > /dev/null
# The kubelet must not collect what it cannot fetch again.
for name in $(c images ls -q); do c images label "$name" io.cri-containerd.pinned=pinned; done
kill $daemon
wait $daemon || true
"""
# The folder is a root of its own, in namespaces that take everything down with them.
INSIDE = """
set -eu
mount -t proc proc "$1/proc"
mount -t tmpfs tmpfs "$1/run"
touch "$1/run/images.tar"
mount --bind "$2" "$1/run/images.tar"
exec chroot "$1" /bin/sh -c "$3"
"""


class Containerd(StrEnum):
    """Which containerd nodes have: 2 built from its module, or Debian's."""

    BUILT = "2"
    DEBIANS = "1.6"


def ensure(engine: Engine, containerd: Containerd) -> str:
    """Return the tag of the node image in *engine*, built there unless made from just this."""
    tree = debian.ensure(NODE)
    archive = images.ensure(debian.ensure(TOOLS))
    tag = f"isthmus-node:{versions.kubernetes()}-containerd-{containerd}-{_inputs(archive)}"
    if engine.run("docker", "images", "--quiet", tag):
        return tag
    BUILD.mkdir(parents=True, exist_ok=True)
    scratch = Path(mkdtemp(dir=BUILD, prefix=".node-"))
    try:
        with step("node image (about 20 s)"):
            assemble(tree, scratch / "root", containerd)
            _import_images(scratch / "root", archive)
            _import_node(engine, scratch / "root", tag)
        _remove_older(engine, tag)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return tag


def assemble(tree: Path, root: Path, containerd: Containerd) -> None:
    """Make *root* of the Debian *tree* and of what makes it a node."""
    run("cp", "-a", tree, root)
    run("cp", "-a", "--no-preserve=ownership", f"{FILES_OF_THE_NODE}/tree/.", root)
    _install(root / "usr/bin", KUBERNETES)
    _install(root / "opt/cni/bin", PLUGINS)
    if containerd is Containerd.BUILT:
        for name in DEBIANS_CONTAINERD:
            (root / "usr/bin" / name).unlink(missing_ok=True)
        _install(root / "usr/local/bin", CONTAINERD)
    (root / "etc/containerd").mkdir(exist_ok=True)
    shutil.copy(
        FILES_OF_THE_NODE / "containerd" / f"{containerd}.toml", root / "etc/containerd/config.toml"
    )
    (root / "kind/version").write_text(f"{versions.kubernetes()}\n")
    for name in OF_THE_CONTAINER:
        (root / name).unlink(missing_ok=True)
    _link_units(root / "etc/systemd/system")


def _install(directory: Path, programs: Iterable[str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in programs:
        shutil.copy2(PROGRAMS / name, directory / name)


def _link_units(units: Path) -> None:
    for wants in units.glob("*.wants"):
        shutil.rmtree(wants)
    for name, target in LINKS.items():
        link = units / name
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def _import_images(root: Path, archive: Path) -> None:
    unshare = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    run(*unshare, "sh", "-c", INSIDE, "sh", root, archive, IMPORT)


def _import_node(engine: Engine, root: Path, tag: str) -> None:
    changes = [f"--change={change}" for change in CHANGES]
    command = (*engine.prefix, "docker", "import", *changes, "-", tag)
    with Popen(
        ("tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", root, "-c", "."),
        stdout=PIPE,
    ) as tar:
        environment = {**os.environ, **engine.environment}
        with Popen(command, stdin=tar.stdout, env=environment, stdout=PIPE, stderr=PIPE) as docker:
            _, said = docker.communicate()
    if tar.returncode or docker.returncode:
        raise KindError(f"docker import of the node image failed: {said.decode(errors='replace')}")


def _remove_older(engine: Engine, tag: str) -> None:
    # Each is 700 MB; one that a cluster still runs is refused, and goes the next time.
    family = tag.rpartition("-")[0]
    listed = ("docker", "images", "--format={{.Repository}}:{{.Tag}}", "isthmus-node")
    for name in engine.run(*listed).split():
        if name.startswith(family) and name != tag:
            with suppress(KindError):
                engine.run("docker", "rmi", name)


def _inputs(archive: Path) -> str:
    """Return a digest of what the node image is made from, but for its containerd."""
    stamps = [PROGRAMS / f".{name}" for name in ("cni", "containerd", "kubernetes")]
    files = sorted(path for path in FILES_OF_THE_NODE.rglob("*") if path.is_file())
    return digest_of(Path(__file__), NODE.stamp, *stamps, *files) + archive.stem
