"""What a run of Kubernetes' own tests has shown is read out of its report."""

import pytest

from tests.cluster.e2e import Outcome, outcome

# As ginkgo writes it: one spec passed, two were not chosen, one was chosen and called Skip.
REPORT = """<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="6" disabled="3" errors="0" failures="0" time="9.5">
  <testsuite name="Kubernetes e2e suite" tests="6" disabled="0" skipped="3" errors="0">
    <testcase name="[SynchronizedBeforeSuite]" status="passed" time="0.3"></testcase>
    <testcase name="[It] [sig-network] DNS answers [Conformance]" status="passed" time="4">
      <system-err>&gt; Enter</system-err>
    </testcase>
    <testcase name="[It] [sig-network] Services of clouds" status="skipped" time="0">
      <skipped message="skipped"></skipped>
    </testcase>
    <testcase name="[It] [sig-network] Later" status="pending" time="0">
      <skipped message="pending"></skipped>
    </testcase>
    <testcase name="[It] [sig-network] HostPort serves" status="skipped" time="1">
      <skipped message="skipped - Requires at least 2 nodes"></skipped>
    </testcase>
    <testcase name="[ReportAfterSuite] Kubernetes e2e suite report" status="passed"></testcase>
  </testsuite>
</testsuites>
"""


def test_specs_that_ran_are_counted_and_those_that_declined_have_their_reason() -> None:
    assert outcome(REPORT) == Outcome(
        1, {"[sig-network] HostPort serves": "Requires at least 2 nodes"}
    )


def test_nothing_lacks_when_all_that_were_chosen_ran() -> None:
    assert Outcome(45, {}).lacking(45) == ""


@pytest.mark.parametrize(
    ("seen", "chosen", "said"),
    [
        (outcome(REPORT), 2, "1 of 2 specs ran\n  [sig-network] HostPort serves: Requires at"),
        (Outcome(44, {}), 45, "44 of 45 specs ran"),
        (Outcome(0, {}), 0, "0 of 0 specs ran"),
    ],
)
def test_it_is_said_how_many_lack(seen: Outcome, chosen: int, said: str) -> None:
    assert seen.lacking(chosen).startswith(said)
