"""Where ipamd is, and what its answers mean for a command."""

from pathlib import Path

import click
import pytest

from cli.answers import Problem, Unreachable
from cli.cluster import Cluster, find_cluster, need_cluster
from ipam.rpc import ipamd_pb2 as pb
from tests.unit.cli.conftest import Served


def test_it_is_named_at_the_command_line(tmp_path: Path) -> None:
    found = find_cluster("a:1, [::1]:2", tmp_path)

    assert found == Cluster(("a:1", "[::1]:2"), tmp_path)


def test_a_malformed_name_is_a_matter_of_usage(tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match="'a': give HOST:PORT"):
        find_cluster("a", tmp_path)


def test_none_is_none(tmp_path: Path) -> None:
    assert find_cluster(None, tmp_path) is None
    with pytest.raises(Problem, match="no ipamd is configured here"):
        need_cluster(None, tmp_path)


def test_a_refusal_is_a_problem_and_an_absence_is_not(cluster: Served) -> None:
    asked = Cluster((cluster.endpoint,), cluster.identity)
    away = Cluster(("127.0.0.1:1",), cluster.identity)

    assert asked.show("blocks") == []
    with pytest.raises(Problem, match="can be shown"):
        asked.show("colours")
    with pytest.raises(Problem):
        asked.ask("DeletePool", pb.DeletePoolRequest(name="p"))
    with pytest.raises(Unreachable, match="Connection refused"):
        away.show("blocks")


def test_an_administrator_without_files_is_told_where_to_name_them(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"admin\.pem: No such file.*--identity"):
        Cluster(("127.0.0.1:1",), tmp_path).show("blocks")
