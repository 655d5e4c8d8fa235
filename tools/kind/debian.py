"""Debian trees, as folders: what images are made of."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from tools.kind.places import DEBIAN
from tools.kind.progress import run, step

SUITE = "bookworm"
LEFT_OUT = ("doc", "info", "locale", "man")
CACHES = ("var/cache/apt", "var/lib/apt/lists")


@dataclass(frozen=True, slots=True)
class Tree:
    """A minimal Debian with some packages more."""

    name: str
    packages: tuple[str, ...]

    @property
    def path(self) -> Path:
        return DEBIAN / self.name

    @property
    def stamp(self) -> Path:
        """Says what the folder was made of."""
        return DEBIAN / f"{self.name}.packages"


NODE = Tree(
    "node",
    (
        *("bash", "ca-certificates", "conntrack", "containerd", "e2fsprogs", "ethtool", "hostname"),
        *("iproute2", "iptables", "iputils-ping", "kmod", "mount", "nftables", "procps", "runc"),
        *("socat", "systemd", "systemd-sysv", "tcpdump", "util-linux"),
    ),
)
# What the pods of end-to-end tests call beside agnhost, and what kube-proxy does.
TOOLS = Tree(
    "tools",
    (
        *("bind9-dnsutils", "busybox-static", "ca-certificates", "conntrack", "curl", "iperf"),
        *("iperf3", "iproute2", "iptables", "iputils-ping", "kmod", "netcat-openbsd", "nftables"),
        *("procps", "tcpdump", "wget"),
    ),
)


def ensure(tree: Tree) -> Path:
    """Return the folder of *tree*, made if it is not there with just these packages."""
    wanted = "\n".join((SUITE, *tree.packages))
    if tree.path.is_dir() and tree.stamp.exists() and tree.stamp.read_text() == wanted:
        return tree.path
    DEBIAN.mkdir(parents=True, exist_ok=True)
    with step(f"Debian tree {tree.name}: {len(tree.packages)} packages (about 25 s)"):
        tree.stamp.unlink(missing_ok=True)
        scratch = Path(mkdtemp(dir=DEBIAN, prefix=f".{tree.name}-"))
        try:
            run(*mmdebstrap(tree, scratch / "tree"))
            for cache in CACHES:
                shutil.rmtree(scratch / "tree" / cache, ignore_errors=True)
            shutil.rmtree(tree.path, ignore_errors=True)
            (scratch / "tree").rename(tree.path)
            tree.stamp.write_text(wanted)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return tree.path


def mmdebstrap(tree: Tree, path: Path) -> tuple[str, ...]:
    """Return the command that makes *tree* at *path*."""
    excluded = (f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT)
    return (
        "mmdebstrap",
        "--variant=minbase",
        "--mode=root",
        f"--include={','.join(tree.packages)}",
        '--aptopt=Apt::Install-Recommends "false"',
        *excluded,
        SUITE,
        str(path),
    )
