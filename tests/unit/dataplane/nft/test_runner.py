import pytest

from dataplane.errors import NftError, NftUnavailable
from dataplane.nft.runner import NftRunner


def test_a_missing_program_says_what_to_install() -> None:
    with pytest.raises(NftUnavailable, match="install the package nftables"):
        NftRunner(["/nowhere/nft"]).load("")


def test_a_program_that_hangs_is_unavailable() -> None:
    with pytest.raises(NftUnavailable, match="timed out"):
        NftRunner(["sh", "-c", "read line; exec tail -f /dev/null"], timeout=0.1).load("x\n")


def test_a_refusal_carries_the_first_complaint_and_the_script() -> None:
    with pytest.raises(NftError, match=r"^line one$") as refused:
        NftRunner(["sh", "-c", "echo line one >&2; echo two >&2; exit 1"]).load("the script")

    assert refused.value.script == "the script"


def test_a_silent_refusal_tells_the_status() -> None:
    with pytest.raises(NftError, match="ended with 3"):
        NftRunner(["sh", "-c", "exit 3"]).load("")


def test_check_asks_only() -> None:
    with pytest.raises(NftError, match=r"^--check -f -$"):
        NftRunner(["sh", "-c", 'echo "$@" >&2; exit 1', "sh"]).load("", check=True)
