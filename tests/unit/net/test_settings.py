"""Each check takes what is right and says of the rest what is allowed."""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from net.settings import (
    Check,
    ConfigError,
    LogLevel,
    absolute_path,
    addresses,
    checked,
    endpoints,
    labels,
    load,
    metrics_address,
    networks,
    number,
    one_of,
    path_or_nothing,
    table,
    true_or_false,
    whole_number,
    word,
)

RIGHT: list[tuple[Check, Any, Any]] = [
    (true_or_false, True, True),
    (absolute_path, "/a", Path("/a")),
    (path_or_nothing, "", None),
    (path_or_nothing, "/a", Path("/a")),
    (one_of(LogLevel), "info", LogLevel.INFO),
    (number(0, 3), 3, 3.0),
    (whole_number(0, 3), 3, 3),
    (metrics_address, "", ""),
    (metrics_address, "[::]:1", "[::]:1"),
    (endpoints, ["a:1", "[::1]:2"], ("a:1", "[::1]:2")),
    (endpoints, [], ()),
    (word, "eu-1.a_B", "eu-1.a_B"),
    (networks, ["10.0.0.0/8"], (ip_network("10.0.0.0/8"),)),
    (addresses, ["10.0.0.1", "fd00::1"], (ip_address("10.0.0.1"), ip_address("fd00::1"))),
    (labels, {"zone": "a"}, {"zone": "a"}),
]

WRONG: list[tuple[Check, Any, str]] = [
    (true_or_false, 1, "must be true or false"),
    (absolute_path, "a", "must be an absolute path"),
    (path_or_nothing, "a", "must be an absolute path"),
    (one_of(LogLevel), [], "must be one of debug"),
    (number(0, 3), float("nan"), "must be a number from 0 to 3"),
    (number(0, 3), True, "must be a number from 0 to 3"),
    (whole_number(0, 3), 1.0, "must be a whole number from 0 to 3"),
    (metrics_address, "x", "must be host:port, as"),
    (metrics_address, 1, "must be host:port or empty"),
    (endpoints, "a:1", 'must be a list of host:port, as ["10.0.0.1:9476"'),
    (endpoints, ["a:1", 1], "must be a list of host:port"),
    (endpoints, ["https://a:1"], "'https://a:1' is none"),
    (endpoints, ["a"], "'a' is none"),
    (endpoints, ["a:1", "a:1"], "must not have one twice"),
    (networks, "10.0.0.0/8", "must be a list of address ranges"),
    (networks, ["10.0.0.1/8"], "10.0.0.1/8 has host bits set"),
    (addresses, "10.0.0.1", "must be a list of addresses"),
    (addresses, ["10.0.0.1/8"], "'10.0.0.1/8' does not appear to be"),
    (word, "a/b", "must be 1 to 253 letters"),
    (word, "", "must be 1 to 253 letters"),
    (word, "a" * 254, "must be 1 to 253 letters"),
    (labels, {"a": 1}, "must be a table of texts"),
    (labels, "a=b", "must be a table of texts"),
]


@dataclass(frozen=True, slots=True)
class Sample:
    size: int = 1


def parse(document: Any) -> Sample:
    return checked(Sample, document, {"size": whole_number(0, 3)})


@pytest.mark.parametrize(("check", "value", "result"), RIGHT)
def test_what_is_right_is_converted(check: Check, value: Any, result: Any) -> None:
    assert check(value) == result


@pytest.mark.parametrize(("check", "value", "message"), WRONG)
def test_what_is_wrong_is_told_what_is_allowed(check: Check, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        check(value)

    assert message in str(caught.value)


def test_a_file_becomes_a_value(tmp_path: Path) -> None:
    path = tmp_path / "sample.toml"
    path.write_text("size = 3")

    assert load(path, parse) == Sample(3)


def test_each_fault_of_a_file_has_a_line_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "sample.toml"
    path.write_text("size = 4\ncolour = 1")

    with pytest.raises(ConfigError) as caught:
        load(path, parse)

    assert str(caught.value).splitlines() == [
        f"{path}: size = 4: must be a whole number from 0 to 3",
        f"{path}: unknown key 'colour'; allowed are size",
    ]


def test_a_missing_file_and_what_is_no_toml_are_told(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("size = ")

    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.toml", parse)
    with pytest.raises(ConfigError, match="not TOML"):
        load(tmp_path / "bad.toml", parse)


@dataclass(frozen=True)
class Nested:
    inner: Sample
    note: str = ""


def test_a_table_within_is_checked_as_one_and_its_faults_are_named_with_it() -> None:
    checks = {"inner": table(Sample, {"size": whole_number(0, 3)}), "note": word}

    with pytest.raises(ConfigError) as caught:
        checked(Nested, {"inner": {"size": 4, "colour": 1}, "note": "a b"}, checks)
    with pytest.raises(ConfigError) as missing:
        checked(Nested, {}, checks)

    assert checked(Nested, {"inner": {"size": 2}}, checks) == Nested(Sample(2))
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
        "[inner] size = 4",
        "[inner] unknown key 'colour'; allowed are size",
        "note = 'a b'",
    ]
    assert str(missing.value) == "inner is missing"
