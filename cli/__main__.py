"""The one program: the CNI plugin when a runtime runs it, else the command line.

A runtime sets CNI_COMMAND and waits for milliseconds, so nothing of the command line is
imported on its path.
"""

import os
import sys


def main() -> int:
    """Run as what the environment says we are; return the exit status."""
    if "CNI_COMMAND" in os.environ:
        from agent.standalone import main as plugin

        return plugin()
    from cli.group import isthmus

    isthmus(prog_name="isthmus")
    return 0  # pragma: no cover - click leaves by SystemExit


if __name__ == "__main__":
    sys.exit(main())
