"""One ipamd over a store in memory, as a process of its own: `python -m tests.replica CONFIG`.

It prints its port once it serves.
"""

import asyncio
import signal
import sys
from pathlib import Path

from ipam import auditing, authority
from ipam.daemon import Daemon
from ipam.daemon_config import load
from ipam.memory_kv import MemoryCluster, MemoryKV


async def main() -> None:
    # Nodes of tests that use this have no agent: they are not waited for long.
    auditing.WITHIN_S, authority.AGAIN_S = 0.3, 0.0
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)

    def tell(text: str) -> None:
        if text.startswith("READY"):
            sys.stdout.write(f"{daemon.port}\n")
            sys.stdout.flush()

    daemon = Daemon(load(Path(sys.argv[1])), MemoryKV(MemoryCluster()), tell)
    await daemon.run(stopping)


if __name__ == "__main__":
    asyncio.run(main())
