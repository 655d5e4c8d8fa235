"""Tables for people, JSON for programs."""

import json

import pytest

from cli.answers import print_json, print_table


def test_a_table_in_a_pipe_is_never_folded(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300

    print_table(("A", "B"), [(long, "[red]plain[/red]")], empty="nothing")

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["A", "B"]
    assert lines[-1].split() == [long, "[red]plain[/red]"]


def test_an_empty_table_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A",), [], empty="Nothing is there.")

    assert capsys.readouterr().out == "Nothing is there.\n"


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [1]})

    assert json.loads(capsys.readouterr().out) == {"a": [1]}
