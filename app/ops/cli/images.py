"""`flask images …`: import many images into the store, and export them."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import click
from flask.cli import AppGroup

from app.api.context import components
from app.core.errors import AppError, InvalidKey
from app.ops.cli.output import as_json_option, print_facts
from app.services.bulk import BulkOutcome, BulkReport, BulkResult, run_concurrently
from app.services.bulk_export import Exporter
from app.services.bulk_import import Importer, find_files

images_commands = AppGroup("images", help="Import or export many images.")

T = TypeVar("T")

_INTERRUPTED_STATUS = 130
"""The exit status of commands that Ctrl-C ended, by the convention of shells: 128 + SIGINT."""

_concurrency = click.IntRange(1, 64)


@images_commands.command("import")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--folder", help="Put the images into this folder.")
@click.option(
    "--keep-names", is_flag=True, help="Make keys from the paths below DIR instead of from the content."
)
@click.option("--strict", is_flag=True, help="Exit with status 1 if DIR has files that are not images.")
@click.option("--concurrency", default=4, show_default=True, type=_concurrency)
@as_json_option
def import_images(
    directory: Path, folder: str | None, keep_names: bool, strict: bool, concurrency: int, as_json: bool
) -> None:
    """Store the images in DIR, with the limits of uploads. Exit with status 1 if some could not be stored.

    Images that are stored already are not stored again, and none is replaced: after a failure or Ctrl-C, run
    the same command again. Hidden files, symbolic links and files that are not images are skipped. Metadata
    that an export wrote to DIR/.metadata is stored with the images.
    """
    try:
        importer = Importer(
            components().images, directory, folder=folder, keep_names=keep_names, strict=strict
        )
    except InvalidKey as exc:
        raise click.BadParameter(exc.message, param_hint="--folder") from exc
    report = BulkReport()
    files = find_files(directory, report)
    left, interrupted = _run("Importing", importer.import_file, files, concurrency, report, as_json)
    facts = {
        "files": len(files),
        "stored": report.counts[BulkOutcome.DONE],
        "there_already": report.counts[BulkOutcome.UNCHANGED],
        "skipped": report.counts[BulkOutcome.SKIPPED],
    }
    _print_summary(facts, report, left, interrupted, as_json)


@images_commands.command("export")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--prefix", default="", help="Export only keys with this prefix.")
@click.option("--concurrency", default=8, show_default=True, type=_concurrency)
@as_json_option
def export_images(directory: Path, prefix: str, concurrency: int, as_json: bool) -> None:
    """Write the store's images to DIR, named by their keys. Exit with status 1 if some could not be written.

    Metadata of images, such as the prompt, goes to DIR/.metadata. Files that exist already are not fetched
    again: after a failure or Ctrl-C, run the same command again.
    """
    try:
        images = list(components().images.list_all(prefix))
    except AppError as exc:
        raise click.ClickException(str(exc)) from exc
    if not images and not as_json:
        click.echo("The store lists no images to export.", err=True)
    report = BulkReport()
    try:
        with Exporter.into(components().store, directory) as exporter:
            left, interrupted = _run("Exporting", exporter.export_image, images, concurrency, report, as_json)
    except OSError as exc:
        raise click.ClickException(f"{click.format_filename(directory)}: {exc.strerror}") from exc
    facts = {
        "images": len(images),
        "written": report.counts[BulkOutcome.DONE],
        "there_already": report.counts[BulkOutcome.UNCHANGED],
    }
    _print_summary(facts, report, left, interrupted, as_json)


def _run(
    label: str,
    work: Callable[[T], BulkResult],
    items: Sequence[T],
    concurrency: int,
    report: BulkReport,
    as_json: bool,
) -> tuple[int, bool]:
    """Process the items with a progress bar. Return how many have no result, and True after Ctrl-C."""
    before = report.counts.total()
    steps = run_concurrently(work, items, concurrency, report)
    interrupted = False
    try:
        with (
            closing(steps),
            click.progressbar(steps, length=len(items), label=label, hidden=as_json) as bar,
        ):
            for _ in bar:
                pass
    except KeyboardInterrupt:
        interrupted = True
    return len(items) - (report.counts.total() - before), interrupted


def _print_summary(
    facts: dict[str, Any], report: BulkReport, left: int, interrupted: bool, as_json: bool
) -> None:
    """Print the counts and the reasons, and exit with status 1 or 130 if items failed or are left."""
    failed = report.counts[BulkOutcome.FAILED]
    facts |= {"failed": failed, "left": left}
    if as_json:
        facts["reasons"] = [
            {"name": remark.name, "outcome": remark.outcome, "reason": remark.reason}
            for remark in report.remarks
        ]
    for remark in () if as_json else report.remarks:
        click.echo(f"{remark.outcome}: {_printable(remark.name)}: {remark.reason}", err=True)
    print_facts(as_json, facts)
    if interrupted:
        click.echo("Interrupted. Run the same command again to go on.", err=True)
        raise click.exceptions.Exit(_INTERRUPTED_STATUS)
    if failed or left:
        raise click.exceptions.Exit(1)


def _printable(name: str) -> str:
    """Escape control characters: names come from untrusted sources and may hold terminal sequences."""
    return name if name.isprintable() else ascii(name)
