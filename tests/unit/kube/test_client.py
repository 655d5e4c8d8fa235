import asyncio
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kube.access import Access, Material
from kube.client import Client
from kube.errors import Away, Unauthorized
from kube.objects import Node
from tests.certificates import Authority
from tests.kube_api import NODES, FakeAPI
from tests.kube_contract import CONTRACT, Site

NAME = {"metadata": {"name": "a"}}


async def get(api: FakeAPI, access: Access | None = None) -> str:
    client = Client(lambda: access or api.access())
    try:
        return (await client.get(f"{NODES}/a", Node)).metadata.name
    finally:
        client.close()


@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_the_fake_keeps_the_contract(clause: Callable[[Site], Any]) -> None:
    async def check() -> None:
        async with FakeAPI(tokens={"good", "guest"}) as api:
            api.denied = lambda asked: asked.token == "guest"
            api.forget()
            clients = [
                Client(lambda token=token: api.access(token)) for token in ("good", "bad", "guest")
            ]
            await clause(Site(client=clients[0], stranger=clients[1], guest=clients[2]))
            for client in clients:
                client.close()

    asyncio.run(check())


def test_one_connection_serves_call_after_call() -> None:
    async def check() -> None:
        async with FakeAPI() as api:
            api.put(NODES, NAME)
            client = Client(api.access)
            for _ in range(5):
                await client.get(f"{NODES}/a", Node)

            assert api.connections == 1
            client.close()

    asyncio.run(check())


def test_a_connection_that_the_server_closed_is_replaced_unseen() -> None:
    async def check() -> None:
        async with FakeAPI() as api:
            api.put(NODES, NAME)
            client = Client(api.access)
            await client.get(f"{NODES}/a", Node)
            await api.stop()
            await api.start()

            assert (await client.get(f"{NODES}/a", Node)).metadata.name == "a"
            client.close()

    asyncio.run(check())


def test_a_token_that_changes_is_used_at_the_next_call(tmp_path: Path) -> None:
    async def check() -> None:
        file = tmp_path / "token"
        file.write_text("first\n")
        async with FakeAPI(tokens={"first"}) as api:
            api.put(NODES, NAME)
            access = Access(server=api.url, token=Material(file))
            client = Client(lambda: access)
            await client.get(f"{NODES}/a", Node)
            api.tokens = {"second"}
            with pytest.raises(Unauthorized):
                await client.get(f"{NODES}/a", Node)
            file.write_text("second\n")

            assert (await client.get(f"{NODES}/a", Node)).metadata.name == "a"
            client.close()

    asyncio.run(check())


def _tls(authority: Authority) -> ssl.SSLContext:
    files = authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


def test_another_authority_is_trusted_once_its_file_is_there(tmp_path: Path) -> None:
    async def check() -> None:
        old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
        ca = tmp_path / "ca.pem"
        ca.write_bytes(old.file.read_bytes())
        async with FakeAPI(tls=_tls(old)) as api:
            api.put(NODES, NAME)
            access = Access(server=api.url, ca=Material(ca))
            client = Client(lambda: access)
            await client.get(f"{NODES}/a", Node)
            await api.stop()
            api.tls = _tls(new)
            await api.start()
            with pytest.raises(Away, match="certificate is refused here"):
                await client.get(f"{NODES}/a", Node)
            fresh = tmp_path / "ca.new"
            fresh.write_bytes(new.file.read_bytes())
            os.replace(fresh, ca)

            assert (await client.get(f"{NODES}/a", Node)).metadata.name == "a"
            client.close()

    asyncio.run(check())


def test_another_address_is_used_at_the_next_call() -> None:
    async def check() -> None:
        async with FakeAPI() as here, FakeAPI() as there:
            there.put(NODES, NAME)
            at = [here.access()]
            client = Client(at.pop)
            at.append(there.access())

            assert (await client.get(f"{NODES}/a", Node)).metadata.name == "a"
            client.close()

    asyncio.run(check())


def test_a_certificate_with_another_name_is_taken_where_that_name_is_said(tmp_path: Path) -> None:
    async def check() -> None:
        authority = Authority(tmp_path)
        files = authority.issue("other", hosts=["kubernetes.default.svc"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        async with FakeAPI(tls=context) as api:
            api.put(NODES, NAME)
            access = Access(
                server=api.url,
                server_name="kubernetes.default.svc",
                ca=Material(authority.file),
            )

            assert await get(api, access) == "a"

    asyncio.run(check())


def test_a_server_that_is_away_is_said_to_be() -> None:
    async def check() -> None:
        async with FakeAPI() as api:
            pass
        with pytest.raises(Away, match=f"{api.url}: .*refused|Connect call failed"):
            await get(api)

    asyncio.run(check())


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_server_that_is_too_busy_is_away(code: int) -> None:
    async def check() -> None:
        async with FakeAPI(trouble=lambda asked: code) as api:
            with pytest.raises(Away, match="trouble on demand"):
                await get(api)

    asyncio.run(check())


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_asked() -> None:
    async def check() -> None:
        held = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await held.wait()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = Client(lambda: Access(server=f"http://127.0.0.1:{port}"))
        with pytest.raises(Away, match=r"no answer within 0\.05 s"):
            await client.get(f"{NODES}/a", Node, within_s=0.05)
        held.set()
        server.close()

    asyncio.run(check())
