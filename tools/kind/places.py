"""Where everything of the cluster lies: below build/kind, so that nothing else needs cleaning."""

import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "tools" / "peers"
FILES_OF_THE_NODE = Path(__file__).parent / "node-image"
PROGRAMS = ROOT / "build" / "peers" / "bin"

BUILD = ROOT / "build" / "kind"
LOCK = BUILD / "lock"
KUBECONFIG = BUILD / "kubeconfig"

# Of what runs; gone after `make kind-down`.
RUN = BUILD / "run"
# Kept, so that the next cluster comes up faster.
DEBIAN = BUILD / "debian"
IMAGES = BUILD / "images"
DOCKER_DATA = BUILD / "docker"


def digest_of(*files: Path) -> str:
    """Return a digest of the names, modes and contents of *files*, fit for a file's name."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {path.stat().st_mode:o}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
