"""resolv.conf(5) as far as a result has room for it."""

import os
from pathlib import Path

import pytest

from cni.errors import CNIError
from cni.resolv import parse_resolv_conf, read_resolv_conf
from cni.result import DNS

TEXT = """\
# made by hand
domain old.example
nameserver 10.9.0.53  ; the first
nameserver fd09::53
search a.example b.example
search c.example d.example # the last counts
options ndots:2 rotate
options timeout:1
domain shop.example
sortlist 10.9.0.0
"""


def test_every_directive_with_a_place_in_a_result_is_read() -> None:
    assert parse_resolv_conf(TEXT) == DNS(
        nameservers=("10.9.0.53", "fd09::53"),
        domain="shop.example",
        search=("c.example", "d.example"),
        options=("ndots:2", "rotate", "timeout:1"),
    )


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing", "nameserver", "domain\n", "search #\n"])
def test_what_says_nothing_gives_nothing(text: str) -> None:
    assert parse_resolv_conf(text) == DNS()


def test_bytes_that_are_no_text_do_not_keep_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(b"# \xff\nnameserver 10.9.0.53\n")

    assert read_resolv_conf(str(path)) == DNS(nameservers=("10.9.0.53",))


@pytest.mark.parametrize(
    ("path", "why"), [("/no/such/file", "No such file"), ("/", "Is a directory"), ("a\0b", "null")]
)
def test_a_file_that_cannot_be_read_is_named(path: str, why: str) -> None:
    with pytest.raises(CNIError) as caught:
        read_resolv_conf(path)

    assert caught.value.code == 7
    assert path in caught.value.msg
    assert why in caught.value.details


def test_a_fifo_in_its_place_hangs_nobody(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    os.mkfifo(path)

    with pytest.raises(CNIError) as caught:
        read_resolv_conf(str(path))

    assert (caught.value.code, "FIFO" in str(caught.value)) == (7, True)
