"""CNI_ARGS, args.cni and runtimeConfig: syntax, messages, precedence."""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.args import Pod, Requested, parse_args, parse_requested
from cni.document import Section
from cni.errors import CNIError


def requested(
    args: str = "", convention: dict[str, Any] | None = None, **runtime: object
) -> Requested:
    return parse_requested(args, Section({"args": {"cni": convention or {}}}), Section(runtime))


@pytest.mark.parametrize(
    ("args", "msg"),
    [
        ("FOO", 'ARGS: invalid pair "FOO"'),
        ("IP=10.0.0.1;FOO", 'ARGS: invalid pair "FOO"'),
        ("IP=a=b", 'ARGS: invalid pair "IP=a=b"'),
        ("IP=10.0.0.1;", 'ARGS: invalid pair ""'),
        ("FOO=BAR", 'ARGS: unknown args ["FOO=BAR"]'),
        ("FOO=BAR;X=Y;IgnoreUnknown=0", 'ARGS: unknown args ["FOO=BAR" "X=Y"]'),
        ("ip=10.0.0.1", 'ARGS: unknown args ["ip=10.0.0.1"]'),
        ("IgnoreUnknown=yes", "ARGS: IgnoreUnknown is yes, not one of 1, true, True"),
    ],
)
def test_malformed_args_are_an_invalid_variable(args: str, msg: str) -> None:
    with pytest.raises(CNIError) as caught:
        parse_args(args)

    assert caught.value.code == 4
    assert caught.value.msg.startswith(msg)
    assert "CNI_ARGS" in caught.value.details


@pytest.mark.parametrize("yes", ["1", "true", "True"])
def test_ignore_unknown_permits_unknown_keys_wherever_it_stands(yes: str) -> None:
    assert parse_args(f"FOO=BAR;IgnoreUnknown={yes};IP=10.0.0.1")["IP"] == "10.0.0.1"


def test_what_podman_sends_is_understood() -> None:
    args = "IgnoreUnknown=1;K8S_POD_NAME=pt2;MAC=02:AA:00:00:00:09;IP=10.99.0.9"

    assert requested(args) == Requested(
        addresses=(ip_address("10.99.0.9"),), mac="02:aa:00:00:00:09", pod=Pod(name="pt2")
    )


def test_what_containerd_sends_names_the_pod() -> None:
    args = (
        "K8S_POD_UID=u;K8S_POD_INFRA_CONTAINER_ID=i;IgnoreUnknown=1;"
        "K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop"
    )

    assert requested(args).pod == Pod(namespace="shop", name="web", uid="u", infra_container_id="i")


def test_the_static_plugins_gateway_is_known_and_left_to_it() -> None:
    assert requested("IP=10.0.0.9/24;GATEWAY=10.0.0.1").addresses == (ip_address("10.0.0.9"),)


def test_runtime_config_comes_before_args_cni_and_both_before_cni_args() -> None:
    args, macs = "IP=10.0.0.1;MAC=02:00:00:00:00:01", ["02:00:00:00:00:02", "02:00:00:00:00:03"]
    convention = {"ips": ["10.0.0.2"], "mac": macs[0], "labels": [{"key": "a", "value": "b"}]}

    assert requested(args).mac == "02:00:00:00:00:01"
    assert requested(args, convention).mac == macs[0]
    assert requested(args, convention, mac=macs[1]).mac == macs[1]
    assert requested(args).addresses == (ip_address("10.0.0.1"),)
    assert requested(args, convention).addresses == (ip_address("10.0.0.2"),)
    assert requested(args, convention, ips=["10.0.0.3/24", "fd00::3"]).addresses == (
        ip_address("10.0.0.3"),
        ip_address("fd00::3"),
    )


def test_precedence_is_taken_key_by_key() -> None:
    both = requested("IP=10.0.0.1;MAC=02:00:00:00:00:01", {}, mac="02:00:00:00:00:03", ips=[])

    assert both == Requested(addresses=(ip_address("10.0.0.1"),), mac="02:00:00:00:00:03")


def test_the_same_address_twice_is_one_request() -> None:
    assert requested("IP=10.0.0.1,10.0.0.1/24,fd00::1").addresses == (
        ip_address("10.0.0.1"),
        ip_address("fd00::1"),
    )


@pytest.mark.parametrize(
    ("args", "runtime", "code", "complaint"),
    [
        ("IP=10.0.0.300", {}, 4, "ARGS: IP is 10.0.0.300"),
        ("MAC=nonsense", {}, 4, "ARGS: MAC is nonsense"),
        ("", {"ips": ["x"]}, 7, r'invalid ips: \["x"\]'),
        ("", {"mac": "01:00:5e:00:00:01"}, 7, 'invalid mac: "01:00:5e:00:00:01"'),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_where_it_was_made(
    args: str, runtime: dict[str, object], code: int, complaint: str
) -> None:
    with pytest.raises(CNIError, match=complaint) as caught:
        requested(args, **runtime)

    assert caught.value.code == code


def code_of(attempt: Callable[[], object]) -> int:
    """The code of the error that *attempt* raises, or 0."""
    try:
        attempt()
    except CNIError as error:
        return error.code
    return 0


@given(st.text() | st.text(alphabet="IPMAC=;Ignoreunkw1.:/,0"))
def test_any_args_are_read_or_refused_with_code_4(args: str) -> None:
    assert code_of(lambda: requested(args)) in (0, 4)
