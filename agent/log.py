"""Log records on stderr: one JSON object a line, or a line for people on a terminal."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Protocol, TextIO

from net.settings import LogFormat, LogLevel

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Wanted(Protocol):
    """What a daemon's configuration says about its log."""

    @property
    def log_format(self) -> LogFormat: ...
    @property
    def log_level(self) -> LogLevel: ...


def configure(config: Wanted, stream: TextIO = sys.stderr) -> None:
    """Send all records of *config*'s level and above to *stream*."""
    as_json = config.log_format is LogFormat.JSON or (
        config.log_format is LogFormat.AUTO and not stream.isatty()
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONFormatter() if as_json else ConsoleFormatter())
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _when(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class JSONFormatter(logging.Formatter):
    """time, level, logger, msg, the record's extras, and a traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _when(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class ConsoleFormatter(logging.Formatter):
    """The same for people: time, level, message, extras as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        extras = " ".join(f"{key}={value}" for key, value in _extras(record).items())
        line = (
            f"{_when(record)[11:23]} {record.levelname:<7} {record.getMessage()} {extras}".rstrip()
        )
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line
