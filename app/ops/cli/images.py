"""`flask images …`: import images into the store, export them from it, and sign URLs of variants."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import click
from flask.cli import AppGroup
from marshmallow import ValidationError

from app.api.context import components
from app.config.fields import Duration
from app.core.errors import AppError, InvalidKey
from app.core.variant_keys import VariantPath, split_variant_path
from app.ops.cli.output import as_json_option, print_facts, printable
from app.services.bulk import BulkOutcome, BulkReport, BulkResult, run_concurrently
from app.services.bulk_export import Exporter
from app.services.bulk_import import Importer, find_files

images_commands = AppGroup("images", help="Import or export images, or sign URLs of variants.")

T = TypeVar("T")

_INTERRUPTED_STATUS = 130
"""The exit status after Ctrl-C, as in shells: 128 + SIGINT."""

_MAX_LIFETIME_SECONDS = 100 * 366 * 86_400

_concurrency = click.IntRange(1, 64)


def _lifetime(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Return the number of seconds that an option such as `1d` stands for, or None if it is not used."""
    if value is None:
        return None
    try:
        return Duration(1, _MAX_LIFETIME_SECONDS).deserialize(value)
    except ValidationError as exc:
        raise click.BadParameter(f"{value!r} {exc.messages[0]}") from exc


@images_commands.command("import")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--folder", help="Store the images in this folder.")
@click.option(
    "--keep-names", is_flag=True, help="Make keys from the paths under DIR instead of from the content."
)
@click.option("--strict", is_flag=True, help="Exit with status 1 if DIR contains files that are not images.")
@click.option("--concurrency", default=4, show_default=True, type=_concurrency)
@as_json_option
def import_images(
    directory: Path, folder: str | None, keep_names: bool, strict: bool, concurrency: int, as_json: bool
) -> None:
    """Store the images in DIR. Upload limits apply. Exit with status 1 if any image could not be stored.

    Existing images are neither stored again nor replaced, so you can repeat the command after a failure or
    Ctrl-C. Hidden files, symbolic links and files that are not images are skipped. Metadata that an export
    wrote to DIR/.metadata is stored with the images.
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
@click.option("--prefix", default="", help="Export only images whose keys have this prefix.")
@click.option("--concurrency", default=8, show_default=True, type=_concurrency)
@as_json_option
def export_images(directory: Path, prefix: str, concurrency: int, as_json: bool) -> None:
    """Write all images to DIR, named by their keys. Exit with status 1 if any could not be written.

    Metadata of the images, such as the prompt, is written to DIR/.metadata. Existing files are not fetched
    again, so you can repeat the command after a failure or Ctrl-C.
    """
    try:
        images = list(components().images.list_all(prefix))
    except AppError as exc:
        raise click.ClickException(str(exc)) from exc
    if not images and not as_json:
        click.echo("The store contains no images to export.", err=True)
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


@images_commands.command("sign")
@click.argument("key")
@click.argument("variant", metavar="SPEC[.EXT]")
@click.option(
    "--expires", callback=_lifetime, help="How long the URL is valid, such as 1d. Default: forever."
)
def sign_url(key: str, variant: str, expires: int | None) -> None:
    """Print the URL of a variant of the image KEY, with a signature if the variant needs one.

    SPEC is a preset, or words such as w400,h300,cover. EXT is avif, webp, jpg, png or gif. Without EXT, the
    server chooses the format for each client.
    """
    config = components().config
    path = split_variant_path(f"{key}/{variant}") or VariantPath(key, variant, "")
    expires_at = None if expires is None else int(time.time()) + expires
    try:
        url = components().variant_urls.url_of(path.source, path.name, path.extension, expires_at)
    except AppError as exc:
        raise click.ClickException(str(exc)) from exc
    click.echo(f"{config.script_name}{url}" if url.startswith("/") else url)
    if expires and "?" not in url:
        click.echo("This variant needs no signature, so its URL does not expire.", err=True)


def _run(
    label: str,
    work: Callable[[T], BulkResult],
    items: Sequence[T],
    concurrency: int,
    report: BulkReport,
    as_json: bool,
) -> tuple[int, bool]:
    """Process the items with a progress bar.

    Return a tuple: the number of items that were not processed, and whether Ctrl-C was pressed.
    """
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
    """Print the counts, and the reasons for failures and skips.

    Exit with status 130 after Ctrl-C, or with status 1 if items failed or were not processed.
    """
    failed = report.counts[BulkOutcome.FAILED]
    facts |= {"failed": failed, "left": left}
    if as_json:
        facts["reasons"] = [
            {"name": remark.name, "outcome": remark.outcome, "reason": remark.reason}
            for remark in report.remarks
        ]
    for remark in () if as_json else report.remarks:
        click.echo(f"{remark.outcome}: {printable(remark.name)}: {remark.reason}", err=True)
    print_facts(as_json, facts)
    if interrupted:
        click.echo("Interrupted. Run the same command again to continue.", err=True)
        raise click.exceptions.Exit(_INTERRUPTED_STATUS)
    if failed or left:
        raise click.exceptions.Exit(1)
