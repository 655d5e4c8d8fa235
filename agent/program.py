"""This very program, to be run again."""

import shutil
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent  # the source tree, or a frozen program's folder


def own_command() -> list[str]:
    """How this very program is run again, from any directory."""
    if getattr(sys, "frozen", False):
        return [str(Path(sys.executable).resolve())]
    if script := shutil.which("isthmus", path=str(Path(sys.executable).parent)):
        return [script]
    return ["/usr/bin/env", f"PYTHONPATH={TREE}", sys.executable, "-m", "cli"]
