"""Every source file has a test file of its own, and no test file outlives its source."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "tests" / "unit"
GENERATED = ("ipam.rpc",)


def packages() -> list[Path]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        names = tomllib.load(file)["tool"]["setuptools"]["packages"]
    return [Path(*name.split(".")) for name in names if name not in GENERATED]


def modules() -> set[Path]:
    return {
        package / file.name
        for package in packages()
        for file in (ROOT / package).glob("*.py")
        if file.name not in ("__init__.py", "__main__.py")
    }


def modules_with_tests() -> set[Path]:
    return {
        file.relative_to(UNIT).with_name(file.name.removeprefix("test_"))
        for package in packages()
        for file in (UNIT / package).glob("test_*.py")
    }


def test_every_module_has_a_unit_test_file() -> None:
    missing = sorted(map(str, modules() - modules_with_tests()))

    assert missing == []


def test_every_unit_test_file_has_its_module() -> None:
    # A test of something that only tests have lies beside it.
    tested = {path for path in modules_with_tests() if not (UNIT / path).exists()}
    stray = sorted(map(str, tested - modules()))

    assert stray == []
