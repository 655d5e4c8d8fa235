"""Images of a node: Kubernetes' components, and what tests run in pods, around our own programs."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.kind import archive, versions
from tools.kind.archive import Content, Image
from tools.kind.debian import TOOLS
from tools.kind.places import FILES_OF_THE_NODE, IMAGES, PROGRAMS, digest_of
from tools.kind.progress import run, step

REGISTRY = "registry.k8s.io"
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
PAUSE_SOURCE = FILES_OF_THE_NODE / "pause.c"
BOOM = "regression-issue-74839"
IPERF = Path(__file__).parent / "tools-image" / "iperf"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# Folders of a Debian tree that a container does not get from its image.
NOT_IN_IMAGES = ("dev/", "proc/", "sys/", "run/")


def components(version: str, pause: Path) -> tuple[Image, ...]:
    """Return the images that kubeadm of Kubernetes *version* asks for, but for kube-proxy."""
    return (
        *(_program(f"{name}:{version}", f"usr/local/bin/{name}", name) for name in COMPONENTS),
        _program(
            f"etcd:{versions.ETCD_TAG}",
            "usr/local/bin/etcd",
            "etcd",
            {f"usr/local/bin/{name}": PROGRAMS / name for name in ("etcdctl", "etcdutl")},
        ),
        _program(f"coredns/coredns:{versions.COREDNS_TAG}", "coredns", "coredns"),
        Image(
            tags=(f"{REGISTRY}/pause:{versions.PAUSE_TAG}",),
            layers=({"pause": pause},),
            entrypoint=("/pause",),
        ),
    )


def tools(version: str, debian: Mapping[str, Content], tls: Mapping[str, Content]) -> list[Image]:
    """Return kube-proxy and the images of tests: one Debian layer, a program or two above it."""
    agnhost = {
        "agnhost": PROGRAMS / "agnhost",
        "coredns": PROGRAMS / "coredns",  # specs of DNS start it from this image
        "uploads/.keep": b"",  # netexec keeps there what it is sent
        "usr/local/bin/iperf": IPERF,
        **tls,
    }
    proxy = {"usr/local/bin/kube-proxy": PROGRAMS / "kube-proxy"}
    return [
        Image(
            tags=tuple(f"{REGISTRY}/{name}" for name in versions.LIKE_AGNHOST),
            layers=(debian, agnhost),
            entrypoint=("/agnhost",),
            command=("pause",),
        ),
        Image(
            tags=tuple(f"{REGISTRY}/{name}" for name in versions.WEB_SERVERS),
            layers=(debian, agnhost),
            entrypoint=("/agnhost", "netexec", "--http-port=80"),
        ),
        Image(
            tags=(f"{REGISTRY}/{versions.BOOM}",),
            layers=({BOOM: PROGRAMS / BOOM},),
            entrypoint=(f"/{BOOM}",),
        ),
        Image(
            tags=(f"{REGISTRY}/kube-proxy:{version}",),
            layers=(debian, proxy),
            entrypoint=("/usr/local/bin/kube-proxy",),
        ),
    ]


def ensure(debian: Path) -> Path:
    """Return the archive of all images, written unless made from just this.

    *debian* is the tree that the images of tools are made of.
    """
    path = IMAGES / f"{_digest()}.tar"
    if path.exists():
        return path
    version = versions.kubernetes()
    with (
        step("images of Kubernetes' components and of test programs (about 15 s)"),
        TemporaryDirectory() as scratch,
    ):
        shutil.rmtree(IMAGES, ignore_errors=True)
        pause = Path(scratch, "pause")
        run("musl-gcc", "-static", "-Os", "-s", "-o", pause, PAUSE_SOURCE)
        layer = archive.tree(debian, NOT_IN_IMAGES)
        tls = _tls(Path(scratch))
        archive.write(path, [*components(version, pause), *tools(version, layer, tls)])
    return path


def _program(tag: str, path: str, program: str, more: Mapping[str, Content] | None = None) -> Image:
    layer: dict[str, Content] = {
        "etc/ssl/certs/ca-certificates.crt": CERTIFICATES.resolve(),
        path: PROGRAMS / program,
        **(more or {}),
    }
    return Image(tags=(f"{REGISTRY}/{tag}",), layers=(layer,), entrypoint=(f"/{path}",))


def _digest() -> str:
    sources = [Path(__file__).with_name(f"{name}.py") for name in ("archive", "images", "versions")]
    stamps = [PROGRAMS / f".{name}" for name in ("boom", "coredns", "etcd", "kubernetes")]
    return digest_of(*sources, *stamps, PAUSE_SOURCE, IPERF, TOOLS.stamp)


def _tls(scratch: Path) -> dict[str, Content]:
    """Return the certificate and key that `agnhost porter` serves with."""
    key, certificate = scratch / "key", scratch / "certificate"
    names = "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost"
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650")
    run(*command, "-subj", "/O=tests", "-addext", names, "-keyout", key, "-out", certificate)
    key.chmod(0o644)
    return {"localhost.crt": certificate, "localhost.key": key}
