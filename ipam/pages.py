"""What a daemon shows of itself over HTTP: metrics, whether it lives, whether it is ready.

/metrics    Prometheus' text form; any path that is not the others'
/livez      200, or 503 and why it should be started again
/readyz     200, or 503 and why it does not serve now
"""

import logging
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Complaint = Callable[[], str]

log = logging.getLogger(__name__)


def nothing() -> str:
    """No complaint."""
    return ""


def serve(
    address: str, collector: object, *, alive: Complaint = nothing, ready: Complaint = nothing
) -> ThreadingHTTPServer:
    """Serve at host:port *address* from threads of its own until closed.

    *collector* is as prometheus_client asks for; *alive* and *ready* give a complaint, or "".
    Raises OSError.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(collector)  # type: ignore[arg-type]
    judges = {"/livez": alive, "/readyz": ready}

    class Page(BaseHTTPRequestHandler):
        timeout = 5  # for a request that does not come to its end

        def do_GET(self) -> None:
            judge = judges.get(self.path)
            if judge is None:
                self._answer(200, "text/plain; version=0.0.4", generate_latest(registry))
            else:
                complaint = judge()
                text = f"{complaint or 'ok'}\n".encode()
                self._answer(503 if complaint else 200, "text/plain", text)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """A probe each second is no line of our log."""

    host, _, port = address.rpartition(":")
    family, *_, where = socket.getaddrinfo(
        host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]

    class Server(ThreadingHTTPServer):
        address_family = family

        def handle_error(self, request: Any, client_address: Any) -> None:
            log.debug("a page was not sent", exc_info=True)  # who asked did not wait

    server = Server(where[:2], Page)  # type: ignore[arg-type]
    threading.Thread(target=server.serve_forever, name="pages", daemon=True).start()
    return server
