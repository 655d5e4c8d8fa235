"""Which of the two ways is taken."""

import pytest

from tools.kind import way
from tools.kind.progress import KindError
from tools.kind.way import Way


@pytest.mark.parametrize("named", list(Way))
def test_the_way_that_is_named_is_taken(named: Way) -> None:
    assert way.chosen({way.VARIABLE: named}) is named


def test_a_way_that_does_not_exist_is_an_error_that_names_those_that_do() -> None:
    with pytest.raises(KindError, match="ISTHMUS_KIND=podman: must be one of stock, built"):
        way.chosen({way.VARIABLE: "podman"})
