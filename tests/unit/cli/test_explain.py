"""`isthmus explain` as it is asked and read."""

from typing import Any

import pytest
from click.testing import CliRunner

from cli import explain as command
from cli.explain import deviation, lines, rows


def explained(**more: Any) -> dict[str, Any]:
    return {
        "source": "10.244.1.9",
        "source_is": "pod",
        "destination": "10.96.0.1:80/tcp",
        "service": "shop/web",
        "port": "http",
        "fate": "translated",
        "reason": "it is a cluster IP",
        "masqueraded": False,
        "affinity_s": 0,
        "remembered": "",
        "endpoints": [
            {"at": "10.244.1.7:8080", "node": "n1", "why_not": "not ready"},
            {"at": "10.244.2.7:8080", "node": "n2", "why_not": ""},
        ],
        "problems": [],
        "programmed": True,
        "kernel": {"fate": "translated", "endpoints": ["10.244.2.7:8080"]},
        **more,
    }


def test_what_may_be_reached_comes_first_and_the_rest_with_its_reason() -> None:
    assert rows(explained()) == [
        ("10.244.2.7:8080", "n2", "yes"),
        ("10.244.1.7:8080", "n1", "no: not ready"),
    ]


def test_service_port_fate_and_reason_are_told() -> None:
    found = dict(line.split(maxsplit=1) for line in lines(explained()))

    assert found["Service"] == "shop/web, port http"
    assert found["fate"] == "goes to one of the endpoints below"
    assert found["because"] == "it is a cluster IP"


def test_masquerade_and_affinity_are_told_where_there_are_any() -> None:
    said = lines(explained(masqueraded=True, affinity_s=600, remembered="10.244.2.7:8080"))

    assert "masqueraded" in said[-2]
    assert said[-1].endswith("a client keeps its endpoint for 600 s: it has 10.244.2.7:8080")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["10.0.0.300", "10.96.0.1:80"], "'10.0.0.300' must be an IPv4 or IPv6 address"),
        (["10.0.0.3", "10.96.0.1"], "'10.96.0.1' must be ADDRESS:PORT"),
        (["10.0.0.3", "10.96.0.1:http"], "with a port of 1 to 65535"),
        (["10.0.0.3", "10.96.0.1:70000"], "with a port of 1 to 65535"),
        (["fd00::1", "fd00::2:80"], "[ADDRESS]:PORT for IPv6"),
        (["10.0.0.3", "[fd00::2]:80"], "must be of one family"),
        (["10.0.0.3", "10.96.0.1:80", "--protocol", "icmp"], "'tcp', 'udp', 'sctp'"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(words: list[str], complaint: str) -> None:
    done = CliRunner().invoke(command.explain, [*words, "--socket", "/s"])

    assert done.exit_code == 2
    assert complaint in " ".join(done.output.split())


@pytest.mark.parametrize(("programmed", "status"), [(True, 0), (False, 1)])
def test_a_kernel_that_does_otherwise_is_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, programmed: bool, status: int
) -> None:
    asked: list[dict[str, Any]] = []

    def agent(_: str, op: dict[str, Any]) -> dict[str, Any]:
        asked.append(op)
        return {"explained": explained(programmed=programmed)}

    monkeypatch.setattr(command, "ask_agent", agent)

    done = CliRunner().invoke(
        command.explain, ["fd00::1", "[fd00::2]:53", "--protocol", "udp", "--socket", "/s"]
    )

    assert done.exit_code == status
    assert asked == [{"op": "explain", "source": "fd00::1", "address": "fd00::2", "port": 53,
                      "protocol": "udp"}]  # fmt: skip


def test_what_the_kernel_does_instead_is_named() -> None:
    assert deviation({"fate": "translated", "endpoints": ["10.244.9.9:80"]}).endswith(
        "translated (10.244.9.9:80)"
    )
