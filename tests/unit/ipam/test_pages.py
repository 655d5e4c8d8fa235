"""What a daemon shows of itself over HTTP."""

from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import HTTPServer

import pytest
from prometheus_client.core import GaugeMetricFamily

from ipam.pages import serve


class Numbers:
    def collect(self) -> Iterator[object]:
        yield GaugeMetricFamily("isthmus_test", "A number", value=7.0)


def asked(server: HTTPServer, path: str) -> tuple[int, str]:
    connection = HTTPConnection(*server.server_address[:2], timeout=10)  # type: ignore[arg-type]
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture(params=["127.0.0.1:0", "[::1]:0"])
def complaints(request: pytest.FixtureRequest) -> Iterator[tuple[HTTPServer, dict[str, str]]]:
    said = {"alive": "", "ready": ""}
    server = serve(
        request.param, Numbers(), alive=lambda: said["alive"], ready=lambda: said["ready"]
    )
    yield server, said
    server.shutdown()
    server.server_close()


def test_one_who_lives_and_is_ready_says_so(complaints: tuple[HTTPServer, dict[str, str]]) -> None:
    server, _ = complaints

    assert asked(server, "/livez") == (200, "ok\n")
    assert asked(server, "/readyz") == (200, "ok\n")


def test_a_complaint_is_told_with_its_reason(complaints: tuple[HTTPServer, dict[str, str]]) -> None:
    server, said = complaints
    said["ready"] = "the store is lost"

    assert asked(server, "/livez") == (200, "ok\n")
    assert asked(server, "/readyz") == (503, "the store is lost\n")


def test_the_numbers_are_read_when_they_are_asked_for(
    complaints: tuple[HTTPServer, dict[str, str]],
) -> None:
    server, _ = complaints

    status, text = asked(server, "/metrics")

    assert status == 200
    assert "isthmus_test 7.0" in text


def test_an_address_that_is_taken_is_an_error() -> None:
    server = serve("127.0.0.1:0", Numbers())
    host, port = server.server_address[:2]
    try:
        with pytest.raises(OSError, match="in use"):
            serve(f"{host!s}:{port}", Numbers())
    finally:
        server.shutdown()
        server.server_close()
