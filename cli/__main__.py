"""The one program: the CNI plugin when a runtime runs it, else the command line.

A runtime sets CNI_COMMAND and waits for milliseconds, so nothing of the command line is
imported on its path.
"""

import os
import sys


def main() -> int:
    """Run as what the environment says we are; return the exit status."""
    _forget_loader()
    if "CNI_COMMAND" in os.environ:
        from agent.standalone import main as plugin

        return plugin()
    from cli.group import isthmus

    isthmus(prog_name="isthmus")
    return 0  # pragma: no cover - click leaves by SystemExit


def _forget_loader() -> None:
    """Undo what the frozen program's loader did to the environment.

    nft must not load the libraries beside us, and a run of this same program has to begin anew.
    """
    if not getattr(sys, "frozen", False):
        return
    os.environ.pop("LD_LIBRARY_PATH", None)
    if (former := os.environ.pop("LD_LIBRARY_PATH_ORIG", None)) is not None:
        os.environ["LD_LIBRARY_PATH"] = former
    for name in [name for name in os.environ if name.startswith("_PYI_")]:
        del os.environ[name]


if __name__ == "__main__":
    sys.exit(main())
