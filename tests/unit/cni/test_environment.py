"""The table of required variables and the syntax of their values (facts of Go's skel tests)."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.environment import Call, Verb, check, ifname_fault
from cni.errors import CNIError

FULL = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/a",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "A=B",
    "CNI_PATH": "/opt/cni/bin::/usr/lib/cni",
}


def environment(verb: str, **changes: str) -> dict[str, str]:
    return {"CNI_COMMAND": verb, **FULL, **changes}


def refusal(**variables: str) -> CNIError:
    with pytest.raises(CNIError) as caught:
        check(variables)

    assert caught.value.code == 4
    return caught.value


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
def test_a_verb_with_an_attachment_takes_all_of_it(verb: str) -> None:
    call = check(environment(verb))

    assert call == Call(
        command=Verb(verb),
        container_id="c1",
        netns="/run/netns/a",
        ifname="eth0",
        args="A=B",
        path=("/opt/cni/bin", "/usr/lib/cni"),
    )


def test_every_missing_variable_is_listed_at_once_in_the_reference_order() -> None:
    error = refusal(CNI_COMMAND="ADD")

    assert error.msg == (
        "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"
    )


@pytest.mark.parametrize(
    ("verb", "needs"),
    [
        ("ADD", "CNI_CONTAINERID CNI_NETNS CNI_IFNAME CNI_PATH"),
        ("DEL", "CNI_CONTAINERID CNI_IFNAME"),
        ("CHECK", "CNI_CONTAINERID CNI_NETNS CNI_IFNAME"),
        ("GC", "CNI_PATH"),
        ("STATUS", ""),
        ("VERSION", ""),
    ],
)
def test_each_variable_is_needed_exactly_where_the_table_says(verb: str, needs: str) -> None:
    for name in FULL:
        lacking = environment(verb, **{name: ""})
        if name in needs.split():
            assert f"[{name}]" in refusal(**lacking).msg
        else:
            assert check(lacking).command == verb


def test_no_command_and_an_unknown_command_are_told_apart() -> None:
    assert refusal(**FULL).msg == "required env variables [CNI_COMMAND] missing"
    assert refusal(**environment("NOPE")).msg == "unknown CNI_COMMAND: NOPE"
    assert refusal(**environment("add")).msg == "unknown CNI_COMMAND: add"


def test_version_ignores_the_dummies_of_podmans_probe() -> None:
    probe = {"CNI_NETNS": "dummy", "CNI_IFNAME": "a/b", "CNI_PATH": "dummy", "CNI_CONTAINERID": ""}

    assert check({"CNI_COMMAND": "VERSION", **probe}) == Call(command=Verb.VERSION)


@pytest.mark.parametrize("verb", ["GC", "STATUS"])
def test_a_verb_without_attachment_looks_at_none_of_its_variables(verb: str) -> None:
    empty = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"), "")
    broken = {"CNI_CONTAINERID": "../x", "CNI_IFNAME": "a/b"}

    for variables in (empty, broken):
        assert check(environment(verb, **variables)) == Call(
            command=Verb(verb), path=("/opt/cni/bin", "/usr/lib/cni")
        )


@pytest.mark.parametrize("value", ["_a", "-a", ".a", "a/b", "../a", "a b", "é", "a\n", "a%b"])
def test_a_container_id_with_other_characters_is_refused(value: str) -> None:
    error = refusal(**environment("ADD", CNI_CONTAINERID=value))

    assert (error.msg, error.details) == ("invalid characters in containerID", value)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("a" * 16, "is longer than 15 bytes"),
        ("é" * 8, "is longer than 15 bytes"),
        (".", "must not be . or .."),
        ("..", "must not be . or .."),
        ("a/b", "must not contain / or : or white space"),
        ("a:b", "must not contain / or : or white space"),
        ("a b", "must not contain / or : or white space"),
        ("a\u2003b", "must not contain / or : or white space"),
        ("eth0\n", "must not contain / or : or white space"),
    ],
)
def test_an_interface_name_the_kernel_cannot_take_is_refused(value: str, fault: str) -> None:
    error = refusal(**environment("DEL", CNI_IFNAME=value))

    assert error.msg == f"interface name in CNI_IFNAME {fault}"
    assert error.details == value


@pytest.mark.parametrize("value", ["all", "default", "eth%d", "%"])
def test_a_name_that_linux_gives_to_no_interface_fails_an_add_and_no_del(value: str) -> None:
    error = refusal(**environment("ADD", CNI_IFNAME=value))

    assert error.msg.startswith("interface name in CNI_IFNAME must not ")
    assert error.details == value
    assert check(environment("DEL", CNI_IFNAME=value)).ifname == value


@pytest.mark.parametrize("value", ["eth0", "a" * 15, "é" * 7, "...", "a.b", "-", "a\x1cb"])
def test_any_other_interface_name_is_taken(value: str) -> None:
    assert check(environment("ADD", CNI_IFNAME=value)).ifname == value


@pytest.mark.parametrize("name", ["CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"])
def test_bytes_that_are_not_utf8_are_refused_by_name(name: str) -> None:
    undecodable = b"a\xff".decode(errors="surrogateescape")

    assert refusal(**environment("ADD", **{name: undecodable})).msg == f"{name} is not valid UTF-8"


@pytest.mark.parametrize(
    ("value", "overridden"),
    [("TRUE", True), ("true", True), ("1", True), ("yes", False), ("", False), ("0", False)],
)
def test_netns_override_is_one_of_three_spellings(value: str, *, overridden: bool) -> None:
    assert check(environment("ADD", CNI_NETNS_OVERRIDE=value)).netns_override is overridden


def code_of(attempt: Callable[[], object]) -> int:
    """The code of the error that *attempt* raises, or 0."""
    try:
        attempt()
    except CNIError as error:
        return error.code
    return 0


@given(st.dictionaries(st.sampled_from(["CNI_COMMAND", *FULL]), st.text()))
def test_any_environment_gives_a_call_or_code_4(variables: dict[str, str]) -> None:
    assert code_of(lambda: check(variables)) in (0, 4)


@given(st.text(min_size=1))
def test_a_name_without_fault_fits_the_kernels_buffer(name: str) -> None:
    if not ifname_fault(name):
        assert len(name.encode(errors="surrogatepass")) <= 15
