"""The two ways to the same cluster: kind's own images, or everything built here."""

import os
import shutil
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from tools.kind import cluster, node, versions
from tools.kind import engine as engines
from tools.kind.cluster import Recipe
from tools.kind.engine import Engine
from tools.kind.node import Containerd
from tools.kind.places import PROGRAMS, ROOT
from tools.kind.progress import KindError, run, step


class Way(StrEnum):
    """Where the node image and the engine that runs it come from."""

    STOCK = "stock"
    BUILT = "built"


VARIABLE = "ISTHMUS_KIND"
DEFAULT_CONFIG = ROOT / "kind-config.yaml"


def chosen(environment: Mapping[str, str] = os.environ) -> Way:
    """Return the way that ISTHMUS_KIND names, or else: stock where docker can get its image."""
    if named := environment.get(VARIABLE):
        if named not in set(Way):
            raise KindError(f"{VARIABLE}={named}: must be one of {', '.join(Way)}")
        return Way(named)
    if engines.running() is None and _docker_gets(versions.STOCK_NODE_IMAGE):
        return Way.STOCK
    return Way.BUILT


def prepare(way: Way, containerd: Containerd) -> tuple[Engine, str]:
    """Return the engine and the node image of a cluster.  This is all in which the ways differ."""
    match way:
        case Way.STOCK:
            for program in ("kind", "kubectl"):
                if shutil.which(program) is None and not (PROGRAMS / program).exists():
                    raise KindError(
                        f"{program} is not installed; see {VARIABLE} in docs/testing.md"
                    )
            return engines.machines(), versions.STOCK_NODE_IMAGE
        case Way.BUILT:
            _need_root()
            run(ROOT / "tools" / "setup.sh", "kind", timeout=3600)
            own = engines.start()
            return own, node.ensure(own, containerd)


def bring_up(config: Path = DEFAULT_CONFIG, containerd: Containerd = Containerd.BUILT) -> Engine:
    """Return the engine with the cluster of *config* in it; nothing happens where it is up."""
    engine, image = prepare(chosen(), containerd)
    cluster.ensure(engine, Recipe(config, image))
    return engine


def current() -> Engine:
    """Return the engine that the cluster is in: our own where that runs, else the machine's."""
    return engines.start() if engines.running() is not None else engines.machines()


def obstacle() -> str:
    """Return why this machine cannot have a cluster, or nothing.

    An engine of our own needs all that a machine may lack; it is started to see.
    """
    try:
        if chosen() is Way.BUILT:
            _need_root()
            run(ROOT / "tools" / "setup.sh", "engine", timeout=900)
            engines.start()
    except (KindError, OSError) as error:
        return str(error)
    return ""


def _need_root() -> None:
    if os.geteuid() != 0:
        raise KindError("a container engine needs root: run this as root")


def _docker_gets(image: str) -> bool:
    docker = engines.machines()
    try:
        docker.run("docker", "version", timeout=10)
        with step(f"node image {image.partition('@')[0]}"):
            docker.run("docker", "pull", "--quiet", image, timeout=900)
    except KindError:
        return False
    return True
