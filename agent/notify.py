"""Tell systemd how we are (sd_notify(3)): one datagram to the socket it named."""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Silent where nobody listens.  *watchdog_s*: how often to say that we live, or 0."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        interval = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # Half the time systemd waits, as sd_watchdog_enabled(3) advises.
        self.watchdog_s = int(interval) / 2e6 if interval.isdecimal() and mine else 0.0

    def tell(self, *lines: str) -> None:
        """Send *lines*, as READY=1; a manager that does not take them is no fault of ours."""
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            try:
                sock.sendto("\n".join(lines).encode(), address)
            except OSError:
                return
