"""Log records for programs and for people."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from agent.config import AgentConfig
from agent.log import ConsoleFormatter, JSONFormatter, configure
from net.settings import LogFormat, LogLevel


def record(msg: str = "served %s", *args: object, **extras: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": "agent.daemon",
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": msg,
            "args": args or ("c1",),
            "created": 1.5,
            **extras,
        }
    )


def failed() -> logging.LogRecord:
    try:
        raise ValueError("no luck")
    except ValueError:
        return record(exc_info=sys.exc_info())


def test_a_line_of_json_has_all_there_is_to_say() -> None:
    line = JSONFormatter().format(record(container_id="c1", ms=1.25))

    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "level": "warning",
        "logger": "agent.daemon",
        "msg": "served c1",
        "container_id": "c1",
        "ms": 1.25,
    }


def test_any_text_is_one_line_of_json() -> None:
    line = JSONFormatter().format(record("two\nlines %s", "\x1b[31m\u2028", why={1: object()}))

    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["msg"] == "two\nlines \x1b[31m\u2028"


def test_a_traceback_is_part_of_the_record() -> None:
    found = json.loads(JSONFormatter().format(failed()))

    assert found["traceback"].endswith("ValueError: no luck")


def test_a_line_for_people_is_short() -> None:
    line = ConsoleFormatter().format(record(container_id="c1", ms=1.25))

    assert line == "00:00:01.500 WARNING served c1 container_id=c1 ms=1.25"


def test_people_see_tracebacks_below() -> None:
    lines = ConsoleFormatter().format(failed()).splitlines()

    assert lines[0] == "00:00:01.500 WARNING served c1"
    assert lines[-1] == "ValueError: no luck"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    found = logging.getLogger()
    level, handlers = found.level, found.handlers[:]
    found.handlers[:] = []
    yield found
    found.setLevel(level)
    found.handlers[:] = handlers


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("chosen", "stream", "is_json"),
    [
        (LogFormat.AUTO, io.StringIO, True),
        (LogFormat.AUTO, Terminal, False),
        (LogFormat.JSON, Terminal, True),
        (LogFormat.CONSOLE, io.StringIO, False),
    ],
)
def test_the_format_follows_the_stream_unless_said(
    root: logging.Logger, chosen: LogFormat, stream: type[io.StringIO], is_json: bool
) -> None:
    out = stream()
    configure(AgentConfig(log_format=chosen), out)

    logging.getLogger("agent.test").info("hello")

    assert out.getvalue().startswith("{") is is_json


def test_records_below_the_level_are_not_written(root: logging.Logger) -> None:
    out = io.StringIO()
    configure(AgentConfig(log_level=LogLevel.WARNING), out)

    logging.getLogger("agent.test").info("quiet")
    logging.getLogger("agent.test").warning("loud")

    assert [json.loads(line)["msg"] for line in out.getvalue().splitlines()] == ["loud"]
