"""`flask images …`: bring many images into the store, or out of it."""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import click
from flask.cli import AppGroup

from app.api.context import components
from app.core.errors import AppError, InvalidKey
from app.ops.cli.output import as_json_option, print_facts
from app.services.bulk import Outcome, Result, Tally, find_files, run
from app.services.bulk_export import Exporter, Wanted
from app.services.bulk_import import Importer

images_commands = AppGroup("images", help="Import or export many images.")

T = TypeVar("T")

_INTERRUPTED = 130
"""What shells say of a command that Ctrl-C ended."""

_concurrency = click.IntRange(1, 64)


@images_commands.command("import")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--folder", help="The folder that the keys begin with.")
@click.option("--keep-names", is_flag=True, help="Make keys from the paths below DIR, not from the bytes.")
@click.option("--strict", is_flag=True, help="Status 1 if DIR has files that are no images.")
@click.option("--concurrency", default=4, show_default=True, type=_concurrency)
@as_json_option
def import_images(
    directory: Path, folder: str | None, keep_names: bool, strict: bool, concurrency: int, as_json: bool
) -> None:
    """Store the images in DIR, held to the limits of uploads; status 1 if some could not be stored.

    An image that is stored already is not stored again, and none is replaced: after a failure or Ctrl-C,
    run the same command again. Hidden files, symbolic links and files that are no images are skipped.
    Metadata that an export wrote into DIR/.metadata is stored with the images.
    """
    its = components()
    try:
        importer = Importer(
            its.config,
            its.store,
            its.cache,
            directory,
            folder=folder,
            keep_names=keep_names,
            strict=strict,
        )
    except InvalidKey as exc:
        raise click.BadParameter(exc.message, param_hint="--folder") from exc
    tally = Tally()
    files = find_files(directory, tally)
    left, interrupted = _run("Importing", importer.bring, files, concurrency, tally, as_json)
    facts = {
        "files": len(files),
        "stored": tally.counts[Outcome.DONE],
        "there_already": tally.counts[Outcome.THERE],
        "skipped": tally.counts[Outcome.SKIPPED],
    }
    _tell(facts, tally, left, interrupted, as_json)


@images_commands.command("export")
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option("--concurrency", default=8, show_default=True, type=_concurrency)
@as_json_option
def export_images(directory: Path, prefix: str, concurrency: int, as_json: bool) -> None:
    """Write the store's images into DIR, by their keys; status 1 if some could not be written.

    What the store keeps with an image, such as its prompt, goes into DIR/.metadata. What is there already is
    not fetched again: after a failure or Ctrl-C, run the same command again.
    """
    try:
        images = [Wanted(i.key, i.size, i.last_modified) for i in components().images.list_all(prefix)]
    except AppError as exc:
        raise click.ClickException(str(exc)) from exc
    if not images and not as_json:
        click.echo("The store lists no images to export.", err=True)
    tally = Tally()
    try:
        with Exporter.into(components().store, directory) as exporter:
            left, interrupted = _run("Exporting", exporter.bring, images, concurrency, tally, as_json)
    except OSError as exc:
        raise click.ClickException(f"{click.format_filename(directory)}: {exc.strerror}") from exc
    facts = {
        "images": len(images),
        "written": tally.counts[Outcome.DONE],
        "there_already": tally.counts[Outcome.THERE],
    }
    _tell(facts, tally, left, interrupted, as_json)


def _run(
    label: str,
    work: Callable[[T], Result],
    items: Sequence[T],
    concurrency: int,
    tally: Tally,
    as_json: bool,
) -> tuple[int, bool]:
    """Work under a progress bar. Return how many items have no result, and whether Ctrl-C is the reason."""
    before = tally.counts.total()
    steps = run(work, items, concurrency, tally)
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
    return len(items) - (tally.counts.total() - before), interrupted


def _tell(facts: dict[str, Any], tally: Tally, left: int, interrupted: bool, as_json: bool) -> None:
    """Print what was done and what was not, and end with the status that says which."""
    failed = tally.counts[Outcome.FAILED]
    facts |= {"failed": failed, "left": left}
    if as_json:
        facts["reasons"] = [
            {"name": remark.name, "outcome": remark.outcome, "reason": remark.reason}
            for remark in tally.remarks
        ]
    for remark in () if as_json else tally.remarks:
        click.echo(f"{remark.outcome}: {_printable(remark.name)}: {remark.reason}", err=True)
    print_facts(as_json, facts)
    if interrupted:
        click.echo("Interrupted. Run the same command again to go on.", err=True)
        raise click.exceptions.Exit(_INTERRUPTED)
    if failed or left:
        raise click.exceptions.Exit(1)


def _printable(name: str) -> str:
    """Names come from anybody: none may steer the terminal."""
    return name if name.isprintable() else ascii(name)
