"""Calls and answers are values: equal by content, unchangeable, usable as keys."""

import dataclasses
import inspect
from ipaddress import ip_network

import pytest

from ipam import calls
from ipam.calls import Held
from ipam.cluster import BlockState

VALUES = [
    each for _, each in inspect.getmembers(calls, dataclasses.is_dataclass) if inspect.isclass(each)
]


@pytest.mark.parametrize("kind", VALUES)
def test_a_call_is_frozen_and_its_fields_are_named(kind: type) -> None:
    parameters = inspect.signature(kind).parameters.values()

    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in parameters)


def test_a_grant_is_told_from_another_of_the_same_block_by_its_revision() -> None:
    first = Held(cidr=ip_network("10.0.0.0/26"), pool="a", epoch=1, revision=7)
    again = dataclasses.replace(first, revision=9)

    assert first != again
    assert {first: "x"}[dataclasses.replace(again, revision=7)] == "x"
    assert first.state is BlockState.ACTIVE
