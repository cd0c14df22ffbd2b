"""`flask bucket doctor`: what is wrong, and how to mend it."""

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
from app.ops.doctor.examination import Result, checks_for, examine
from app.ops.doctor.findings import Status
from app.ops.doctor.patient import Patient
from app.ops.mistyped_settings import mistyped_settings
from app.services.urls import ImageUrls

_COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.PROBLEM: "red", Status.SKIPPED: "cyan"}
_STATUS_WIDTH = 9
_CHECK_WIDTH = 24
_LEAST_WIDTH = 80


@click.command()
@as_json_option
@with_appcontext
def doctor(as_json: bool) -> None:
    """Check settings, bucket and cache; say how to mend what is wrong. Status 1 where there is a problem."""
    with errors_shown():
        patient = _patient()
    found = examine(patient, checks_for(patient.config.store))
    results = _print_json(found) if as_json else _print_table(found)
    if any(result.finding.status is Status.PROBLEM for result in results):
        raise click.exceptions.Exit(1)


def _patient() -> Patient:
    config, store = components().config, components().store
    return Patient(
        config=config,
        store=store,
        cache=components().cache,
        clients=AwsClients.from_config(config),
        url_of=ImageUrls(store, config.image_urls, config.public_base_url).url_of,
        env_file=(file := settings_file()),
        mistyped=mistyped_settings(os.environ, loaded_text(), display_name(file)),
        describe_model=components().generation.describe_model,
    )


def _print_json(found: Iterator[Result]) -> list[Result]:
    results = list(found)
    rows = [
        {"check": r.check, "status": r.finding.status, "finding": r.finding.text, "fix": r.finding.fix}
        for r in results
    ]
    click.echo(json.dumps(rows))
    return results


def _print_table(found: Iterator[Result]) -> list[Result]:
    """Each row as soon as it is known, since some checks take seconds."""
    width = max(shutil.get_terminal_size().columns, _LEAST_WIDTH)
    results = []
    for result in found:
        results.append(result)
        click.echo("\n".join(_row(result, width)))
    counts = Counter(result.finding.status for result in results)
    click.echo("\n" + ", ".join(f"{counts[status]} {status}" for status in Status))
    return results


def _row(result: Result, width: int) -> Iterator[str]:
    """Status, check and finding; what is too long, and the fix, under the finding."""
    finding = result.finding
    left = _STATUS_WIDTH + _CHECK_WIDTH
    first, *more = textwrap.wrap(finding.text, width - left, break_on_hyphens=False)
    status = click.style(f"{finding.status:{_STATUS_WIDTH}}", fg=_COLOURS[finding.status])
    yield f"{status}{result.check:{_CHECK_WIDTH}}{first}"
    fix = textwrap.wrap(f"→ {finding.fix}", width - left, break_on_hyphens=False, subsequent_indent="  ")
    for line in (*more, *(fix if finding.fix else ())):
        yield " " * left + line
