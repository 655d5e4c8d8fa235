"""What holds for every tier: tests that need root say so instead of failing obscurely."""

import os

import pytest

NEED_ROOT = ("kernel", "runtime")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if os.geteuid() != 0 and any(item.get_closest_marker(name) for name in NEED_ROOT):
        pytest.fail("this test makes network namespaces: run it as root", pytrace=False)
