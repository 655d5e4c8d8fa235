"""A node that announces, and nothing else of an agent: `python -m tests.kernel.announcer JSON`.

It answers on `uplink` for the addresses that it is told, as for those of one Service.
"""

import asyncio
import json
import logging
import signal
import sys
import time
from ipaddress import ip_address
from pathlib import Path

from agent.announcing import Announcing, Seams
from agent.bids import Bids
from announcement.settings import Settings
from ipam.tls import TLSFiles
from proxy.model import Service, ServiceName
from proxy.reconciler import Wanted

SERVICE = ServiceName("shop", "web")


async def main() -> None:
    told = json.loads(sys.argv[1])
    name, folder = told["name"], Path(told["certificates"])
    bids = Bids(name)
    service = Service(
        name=SERVICE,
        ports=(),
        cluster_ips=(),
        load_balancer_ips=tuple(map(ip_address, told["addresses"])),
        is_assigned=True,
    )
    bids.told(SERVICE, Wanted(service, {}))
    peers = {node: (ip_address(place),) for node, place in told["peers"].items()}
    seams = Seams(
        name=name,
        peers=lambda: peers,
        own=lambda: peers[name],
        unfit=lambda: "",
        files=TLSFiles(
            certificate=folder / f"node-{name}.pem",
            key=folder / f"node-{name}.key",
            ca=folder / "ca.pem",
        ),
        clock=time.monotonic,
    )
    announcing = Announcing(Settings(), bids, seams)
    running = asyncio.ensure_future(announcing.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    await asyncio.wait([running])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(message)s")
    asyncio.run(main())
