"""`isthmus services` as it is read."""

from typing import Any

import pytest
from click.testing import CliRunner

from cli import services as command
from cli.services import policy, remarks, rows


def service(*endpoints: str, **more: Any) -> dict[str, Any]:
    frontend = {"at": "10.96.0.20:80/tcp", "port": "", "endpoints": list(endpoints), "local": []}
    return {
        "name": "shop/web",
        "frontends": [frontend],
        "internal_policy": "Cluster",
        "external_policy": "Cluster",
        "affinity_s": 0,
        "source_ranges": [],
        "health_check_node_port": 0,
        "programmed": True,
        "problems": [],
        "differing": [],
        **more,
    }


PODS = [f"10.244.1.{n}:80" for n in range(1, 6)]


def test_of_many_endpoints_some_are_shown_and_all_of_one_service() -> None:
    ((_, _, some, *_),) = rows(service(*PODS), whole=False)
    ((_, _, every, *_),) = rows(service(*PODS), whole=True)

    assert some == "10.244.1.1:80, 10.244.1.2:80, 10.244.1.3:80 and 2 more"
    assert every == ", ".join(PODS)


def test_who_has_no_endpoint_is_said_to_be_refused() -> None:
    ((*_, endpoints, _, state),) = rows(service(), whole=False)

    assert (endpoints, state) == ("none: refused", "programmed")


def test_policy_says_what_is_not_as_usual() -> None:
    assert policy(service()) == ""
    assert (
        policy(
            service(
                external_policy="Local",
                affinity_s=60,
                source_ranges=["10.0.0.0/8"],
                health_check_node_port=31000,
            )
        )
        == "external Local, affinity 60 s, from 10.0.0.0/8, health check 31000"
    )


def test_what_is_wrong_is_told_line_by_line() -> None:
    assert remarks(service(problems=["is odd"], differing=["services { x }"])) == [
        "shop/web: is odd",
        "shop/web: the kernel lacks services { x }",
    ]


@pytest.mark.parametrize(("programmed", "status"), [(True, 0), (False, 1)])
def test_what_differs_is_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, programmed: bool, status: int
) -> None:
    found = {"services": [service(*PODS, programmed=programmed)]}
    monkeypatch.setattr(command, "ask_agent", lambda *_: found)

    done = CliRunner().invoke(command.services, ["web", "--socket", "/s"])

    assert done.exit_code == status
    assert "10.96.0.20:80/tcp" in done.output
