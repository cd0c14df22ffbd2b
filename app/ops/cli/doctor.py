"""`flask bucket doctor`: print what is wrong with the configuration, and how to fix it."""

import json
import os
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterator

import click
from flask.cli import with_appcontext

from app.api.context import components
from app.config.env_file import display_name, loaded_text, settings_file
from app.ops.bucket.clients import AwsClients
from app.ops.cli.output import as_json_option, errors_shown
from app.ops.doctor.context import CheckContext
from app.ops.doctor.findings import Status
from app.ops.doctor.runner import CheckResult, checks_for, run_checks
from app.ops.mistyped_settings import mistyped_settings

_COLORS = {Status.OK: "green", Status.WARNING: "yellow", Status.PROBLEM: "red", Status.SKIPPED: "cyan"}
_STATUS_COLUMNS = 9
_CHECK_COLUMNS = 24
_MIN_TERMINAL_COLUMNS = 80


@click.command()
@as_json_option
@with_appcontext
def doctor(as_json: bool) -> None:
    """Check the settings, the bucket and the cache. Exit with status 1 if there is a problem.

    Each problem is printed with its fix.
    """
    with errors_shown():
        context = _context()
    found = run_checks(context, checks_for(context.config.store))
    results = _print_json(found) if as_json else _print_table(found)
    if any(result.finding.status is Status.PROBLEM for result in results):
        raise click.exceptions.Exit(1)


def _context() -> CheckContext:
    application = components()
    file = settings_file()
    return CheckContext(
        config=application.config,
        store=application.store,
        cache=application.cache,
        clients=AwsClients.from_config(application.config),
        url_of=application.images.urls.url_of,
        env_file=file,
        mistyped=mistyped_settings(os.environ, loaded_text(), display_name(file)),
        describe_model=application.generation.describe_model,
    )


def _print_json(found: Iterator[CheckResult]) -> list[CheckResult]:
    results = list(found)
    rows = [
        {"check": r.check, "status": r.finding.status, "finding": r.finding.text, "fix": r.finding.fix}
        for r in results
    ]
    click.echo(json.dumps(rows))
    return results


def _print_table(found: Iterator[CheckResult]) -> list[CheckResult]:
    """Print each result as soon as its check is done, since some checks take seconds. Return all results."""
    columns = max(shutil.get_terminal_size().columns, _MIN_TERMINAL_COLUMNS)
    results = []
    for result in found:
        results.append(result)
        click.echo("\n".join(_row(result, columns)))
    counts = Counter(result.finding.status for result in results)
    click.echo("\n" + ", ".join(f"{counts[status]} {status}" for status in Status))
    return results


def _row(result: CheckResult, columns: int) -> Iterator[str]:
    """Yield the lines for a result: the status, the check and the finding, and the fix below the finding."""
    finding = result.finding
    indent = _STATUS_COLUMNS + _CHECK_COLUMNS
    first, *more = textwrap.wrap(finding.text, columns - indent, break_on_hyphens=False)
    status = click.style(f"{finding.status:{_STATUS_COLUMNS}}", fg=_COLORS[finding.status])
    yield f"{status}{result.check:{_CHECK_COLUMNS}}{first}"
    fix = textwrap.wrap(f"→ {finding.fix}", columns - indent, break_on_hyphens=False, subsequent_indent="  ")
    for line in (*more, *(fix if finding.fix else ())):
        yield " " * indent + line
