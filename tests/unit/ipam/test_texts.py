import pytest

from ipam.texts import LONGEST, fault_of, legible


@pytest.mark.parametrize("text", ["", "web-1", "größer", "n" * LONGEST])
def test_what_can_be_told_is_left_as_it_is(text: str) -> None:
    assert fault_of(text) == ""
    assert legible(text) == text


@pytest.mark.parametrize(
    ("text", "fault", "told"),
    [
        ("a\nb", "cannot be printed", "a\\nb"),
        ("\ud800", "cannot be printed", "\\ud800"),
        ("n" * 2000, "a text of 2000 characters", "n" * (LONGEST - 2) + " …"),
    ],
)
def test_what_cannot_is_told_in_other_words(text: str, fault: str, told: str) -> None:
    assert fault in fault_of(text)
    assert legible(text) == told
    assert fault_of(told) == ""
