import asyncio

import pytest

from kube.access import Access
from kube.client import Client
from kube.errors import Away, Malformed
from kube.objects import Node
from tests.kube_api import NODES


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", Malformed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", Away),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}", Malformed),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", Malformed),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n", Malformed),
        (b"SSH-2.0-OpenSSH\r\n", Malformed),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", Malformed),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000, Malformed),
        (b"", Away),
    ],
)
def test_what_is_no_answer_is_told_apart(answer: bytes, error: type[Exception]) -> None:
    async def check() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = Client(lambda: Access(server=f"http://127.0.0.1:{port}"))
        with pytest.raises(error):
            await client.get(f"{NODES}/a", Node)
        client.close()
        server.close()

    asyncio.run(check())


def test_an_answer_without_length_ends_with_the_connection() -> None:
    async def check() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
            writer.write(b'{"metadata": {"name": "a"}}')
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = Client(lambda: Access(server=f"http://127.0.0.1:{port}"))

        assert (await client.get(f"{NODES}/a", Node)).metadata.name == "a"
        server.close()

    asyncio.run(check())
