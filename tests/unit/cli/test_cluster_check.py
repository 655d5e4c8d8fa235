"""Findings of a whole cluster, and what is done about them."""

from typing import Any

import pytest

from cli.answers import Problem
from cli.cluster_check import check_cluster, release_block
from ipam.rpc import ipamd_pb2 as pb

LEAK = pb.Finding(
    kind="leak", subject="10.9.0.0/26", text="t", mend="release 10.9.0.0/26", mod_revision=7
)
ODD = pb.Finding(kind="leak", subject="x", text="t", mend="polish x", mod_revision=8)
LEFT = pb.Finding(kind="leak", subject="b", text="t", mend="forget b", mod_revision=9)
LAG = pb.Finding(kind="lag", subject="a", text="behind")


class Fake:
    """An ipamd with *findings*, which a release takes away, unless it is refused."""

    def __init__(self, *findings: pb.Finding, refuses: str = "") -> None:
        self.findings = list(findings)
        self.refuses = refuses
        self.released: list[tuple[str, int]] = []

    def ask(self, method: str, request: Any, *, within_s: float = 1.0) -> Any:
        if method == "Check":
            return pb.CheckReply(findings=self.findings)
        if self.refuses:
            raise Problem(self.refuses)
        what = request.cidr if method == "ReleaseBlock" else request.node
        self.released.append((what, request.mod_revision))
        self.findings = [one for one in self.findings if one.mod_revision != request.mod_revision]
        return pb.ReleaseBlockReply()

    def show(self, what: str) -> Any:
        return [{"cidr": "10.9.0.0/26", "mod_revision": 7}]


def check(fake: Any, *, fix: bool) -> list[str]:
    return [found["subject"] for found in check_cluster(fake, fix=fix, quiet=False)]


def test_without_fix_nothing_is_changed(capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake(LEAK, LAG)

    assert check(fake, fix=False) == ["10.9.0.0/26", "a"]
    assert fake.released == []
    assert capsys.readouterr().out.splitlines() == ["leak: 10.9.0.0/26: t", "lag: a: behind"]


def test_what_will_be_done_is_said_before_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake(LEAK, LAG, LEFT)

    assert check(fake, fix=True) == ["a"]
    assert fake.released == [("10.9.0.0/26", 7), ("b", 9)]
    assert capsys.readouterr().out.splitlines() == [
        "will release 10.9.0.0/26 (10.9.0.0/26: t)",
        "will forget b (b: t)",
        "done: release 10.9.0.0/26",
        "done: forget b",
        "lag: a: behind",
    ]


def test_what_cannot_be_done_is_said_and_the_rest_is_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    refusing, newer = Fake(LEAK, refuses="look again"), Fake(ODD, LEAK)

    assert check(refusing, fix=True) == ["10.9.0.0/26"]
    assert check(newer, fix=True) == ["x"]
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "not done: release 10.9.0.0/26: look again"
    assert told[1].startswith("not done: polish x: this program is older")


def test_a_block_is_released_as_it_is_now() -> None:
    fake: Any = Fake()
    release_block(fake, "10.9.0.0/26")
    with pytest.raises(Problem, match="no node has a block"):
        release_block(fake, "10.9.0.64/26")

    assert fake.released == [("10.9.0.0/26", 7)]
