"""One cluster of kind in an engine: created, found again, deleted."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from tools.kind.engine import Engine
from tools.kind.places import BUILD, KUBECONFIG
from tools.kind.progress import KindError, step

NAME = "isthmus"
# Written when the cluster is complete: what it was made from.
COMPLETE = BUILD / "cluster.json"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a cluster is made from."""

    config: Path
    node_image: str

    def digest(self) -> str:
        """Return a digest that differs for what makes another cluster."""
        return hashlib.sha256(self.config.read_bytes() + self.node_image.encode()).hexdigest()


def ensure(engine: Engine, recipe: Recipe) -> None:
    """Create the cluster, unless it is there and was made from just this; any other is replaced."""
    if is_up(engine, recipe):
        return
    delete(engine)
    with step(f"cluster {NAME}, from {recipe.config.name} (about 25 s)"):
        _kind(
            engine,
            "create",
            f"--config={recipe.config}",
            f"--image={recipe.node_image}",
            f"--kubeconfig={KUBECONFIG}",
        )
    COMPLETE.write_text(json.dumps({"made from": recipe.digest()}))


def is_up(engine: Engine, recipe: Recipe) -> bool:
    """Tell whether a cluster of *recipe* is complete and answers."""
    if not COMPLETE.exists() or json.loads(COMPLETE.read_text())["made from"] != recipe.digest():
        return False
    try:
        readyz = ("kubectl", f"--kubeconfig={KUBECONFIG}", "get", "--raw=/readyz")
        engine.run(*readyz, timeout=20)
    except KindError:
        return False
    return True


def delete(engine: Engine) -> None:
    """Delete the cluster; it may be half made, or not there."""
    COMPLETE.unlink(missing_ok=True)
    _kind(engine, "delete", f"--kubeconfig={KUBECONFIG}")
    KUBECONFIG.unlink(missing_ok=True)


def nodes(engine: Engine) -> list[str]:
    """Return the names of the nodes, which are also those of their containers, sorted."""
    return sorted(engine.run("kind", "get", "nodes", f"--name={NAME}").split())


def load(engine: Engine, archive: Path) -> None:
    """Put the images of a docker-archive into every node."""
    engine.run("kind", "load", "image-archive", archive, f"--name={NAME}")


def _kind(engine: Engine, verb: str, *options: str) -> None:
    engine.run("kind", verb, "cluster", f"--name={NAME}", *options)
