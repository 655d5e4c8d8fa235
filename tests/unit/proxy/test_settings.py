"""Values alone: how a file says them is in tests/unit/agent/test_config.py."""

from proxy.settings import Settings


def test_by_default_the_api_says_where_services_are_and_ipamd_where_pods_are() -> None:
    assert (Settings().service_cidrs, Settings().pod_cidrs) == ((), ())
