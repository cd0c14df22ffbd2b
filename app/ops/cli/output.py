"""Helpers for the commands: the `--json` option, the output of results, and one-line errors."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from app.core.errors import AppError
from app.ops.bucket.errors import describe_unexpected

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def print_facts(as_json: bool, facts: dict[str, Any]) -> None:
    """Print the results by name: one per line, or all of them as one JSON object."""
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        click.echo(f"{name.replace('_', ' '):20} {value:,}" if type(value) is int else f"{name:20} {value}")


def printable(name: str) -> str:
    """Escape control characters. Names come from untrusted sources and may contain escape sequences."""
    return name if name.isprintable() else ascii(name)


@contextmanager
def errors_shown() -> Iterator[None]:
    """If an exception is raised, end the command with status 1 and a one-line message.

    The message contains the error's details, which only operators are allowed to see. There is no traceback.
    """
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except AppError as exc:
        raise click.ClickException(str(exc)) from exc
    except Exception as exc:
        raise click.ClickException(
            f"The command stopped because of an unexpected error ({describe_unexpected(exc)})."
        ) from exc
