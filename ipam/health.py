"""grpc.health.v1, by hand: two messages of one field each are not worth a dependency.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

import asyncio
from typing import Any

import grpc

_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"  # HealthCheckResponse.status = 1, 2
_SERVICE = b"isthmus.ipam.v1.IPAM"
# HealthCheckRequest.service as field 1; absent is the server as a whole.
_KNOWN = (b"", b"\x0a" + bytes([len(_SERVICE)]) + _SERVICE)


class Health:
    """Whether this replica should be asked, for whoever has a certificate."""

    def __init__(self) -> None:
        self._serving = False
        self._changed = asyncio.Condition()

    async def set(self, *, serving: bool) -> None:
        async with self._changed:
            self._serving = serving
            self._changed.notify_all()

    def handlers(self) -> Any:
        """To be added to a server."""
        return grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health",
            {
                "Check": grpc.unary_unary_rpc_method_handler(self._check),
                "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
            },
        )

    def _status(self) -> bytes:
        return _SERVING if self._serving else _NOT_SERVING

    async def _check(self, request: bytes, context: Any) -> bytes:
        if request not in _KNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return self._status()

    async def _watch(self, _request: bytes, context: Any) -> None:
        said = b""
        while True:
            async with self._changed:
                while (now := self._status()) == said:
                    await self._changed.wait()
            said = now
            await context.write(said)
