"""What a check finds: how it stands, one line that says so, and how to mend it."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ends."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fix` is a command, a setting or a console path, empty where there is none.

    `hinders` says that checks which need this one could find nothing.
    """

    status: Status
    text: str
    fix: str = ""
    hinders: bool = False


class NotChecked(Exception):
    """Raised inside a check that can't be made; its text is the reason."""


def ok(text: str) -> Finding:
    """As it should be."""
    return Finding(Status.OK, text)


def warning(text: str, fix: str) -> Finding:
    """It works, but not as well or not as safely as it could."""
    return Finding(Status.WARNING, text, fix)


def problem(text: str, fix: str) -> Finding:
    """It does not work, or is not safe."""
    return Finding(Status.PROBLEM, text, fix, hinders=True)


def skipped(reason: str) -> Finding:
    """The check could not be made, or does not apply."""
    return Finding(Status.SKIPPED, reason)


def unchecked(reason: str) -> Finding:
    """The check met something unexpected: no fault of the operator's, as far as anybody can say."""
    return Finding(Status.SKIPPED, f"could not be checked, because of {reason}", hinders=True)
