"""Every refusal is told apart on the wire, and is an error of this package."""

import inspect

import pytest

from ipam import refusals, wire
from ipam.errors import IPAMError
from ipam.refusals import Refused

ALL = [
    each
    for _, each in inspect.getmembers(refusals, inspect.isclass)
    if issubclass(each, Refused) and each is not Refused
]


@pytest.mark.parametrize("kind", ALL)
def test_a_refusal_comes_back_from_the_wire_as_itself(kind: type[Refused]) -> None:
    back = wire.refusal(kind.__name__, "no block is left in pool a")

    assert type(back) is kind
    assert str(back) == "no block is left in pool a"
    assert isinstance(back, IPAMError)
