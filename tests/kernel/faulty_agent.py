"""The agent, but that it kills itself at one step of one verb.

    python -m tests.kernel.faulty_agent --config agent.toml

ISTHMUS_TEST_FAULT is VERB:LABEL:NUMBER:SIDE, as ADD:SQLiteStore.commit:1:after; steps are counted
(tests/kernel/faults.py) from when the first request of that verb comes.
"""

import os
import sys
from pathlib import Path

from agent import daemon
from cni.dispatch import serve
from cni.node import Node
from cni.request import Request, Response
from tests.kernel.faults import Faults, Step, When, choked


def main() -> int:
    verb, label, number, side = os.environ["ISTHMUS_TEST_FAULT"].split(":")
    faults = Faults(at=(Step(label, int(number)), When(side)), deadly=True)

    def counted(request: Request, node: Node) -> Response:
        if request.environment.get("CNI_COMMAND") != verb:
            return serve(request, node)
        with faults.count():
            return serve(request, node)

    vars(daemon)["serve"] = counted
    with choked(faults):
        return daemon.main(Path(sys.argv[sys.argv.index("--config") + 1]))


if __name__ == "__main__":
    sys.exit(main())
