"""Tables for people, JSON for programs."""

import json
from operator import itemgetter

import pytest

from cli.answers import Columns, print_json, print_rows, print_table


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


def test_rows_are_shown_by_columns_or_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "a", "more": [1]}]
    columns: Columns = {"NAME": itemgetter("name"), "MORE": lambda row: len(row["more"])}

    print_rows(rows, columns, as_json=False, empty="none")
    print_rows([], columns, as_json=False, empty="none")
    table = capsys.readouterr().out.splitlines()
    print_rows(rows, columns, as_json=True, empty="none")

    assert (table[0].split(), table[2].split(), table[3]) == (["NAME", "MORE"], ["a", "1"], "none")
    assert json.loads(capsys.readouterr().out) == rows
