"""HTTP, as far as a probe needs it."""

import asyncio

from agent.small_pages import Page, serve


def exchange(request: bytes) -> bytes:
    async def main() -> bytes:
        server = await serve(
            "127.0.0.1", 0, lambda path: Page(200, path.encode(), headers={"X-It": "1"})
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(request)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        server.close()
        return answer

    return asyncio.run(main())


def test_a_page_has_its_path_length_and_headers() -> None:
    head, _, body = exchange(b"GET /healthz?x=1 HTTP/1.1\r\nHost: a\r\n\r\n").partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 8\r\n" in head
    assert b"X-It: 1" in head
    assert body == b"/healthz"


def test_head_has_no_body_and_nothing_else_is_allowed() -> None:
    assert exchange(b"HEAD / HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")
    assert exchange(b"POST / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405 ")


def test_rubbish_and_half_a_request_are_answered_by_an_end() -> None:
    assert exchange(b"\x16\x03\x01 rubbish\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert exchange(b"GET / HT") == b""
    assert exchange(b"G" * 70000) == b""
