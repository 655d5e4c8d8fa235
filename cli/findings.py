"""What the doctor says: one finding for each thing wrong, with its reason and its remedy."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """ERROR: containers are or will be broken.  WARNING: they may be.  INFO: good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """*what* is the case, *why* it matters, and how to *mend* it; one sentence each."""

    severity: Severity
    what: str
    why: str
    mend: str


def error(what: str, why: str, mend: str) -> Finding:
    return Finding(severity=Severity.ERROR, what=what, why=why, mend=mend)


def warning(what: str, why: str, mend: str) -> Finding:
    return Finding(severity=Severity.WARNING, what=what, why=why, mend=mend)


def info(what: str, why: str, mend: str) -> Finding:
    return Finding(severity=Severity.INFO, what=what, why=why, mend=mend)
