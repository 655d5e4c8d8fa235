"""What is generated is what is committed."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_generating_again_gives_the_same_bytes(tmp_path: Path) -> None:
    subprocess.run([ROOT / "tools" / "protos.sh", tmp_path], check=True, timeout=60)
    made = {file.name: file.read_bytes() for file in (tmp_path / "ipam" / "rpc").iterdir()}

    kept = {file.name: file.read_bytes() for file in (ROOT / "ipam" / "rpc").glob("*_pb2*")}
    assert made == kept
