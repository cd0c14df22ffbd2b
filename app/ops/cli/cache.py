"""`flask cache …`: show, check, repair, empty and warm the disk cache."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import click
from flask.cli import AppGroup

from app.api.context import components
from app.cache.health import CACHE_ERRORS
from app.cache.lookup import CacheStatus
from app.core.errors import AppError, CacheUnreadable
from app.core.object_keys import check_readable, is_readable
from app.ops.cli.output import as_json_option, errors_shown, print_facts

_FAILED = "failed"

_WARM_FACTS = {
    "brought": [CacheStatus.MISS.value],
    "there_already": [CacheStatus.HIT.value, CacheStatus.REVALIDATED.value, CacheStatus.COLLAPSED.value],
    "without_room": [CacheStatus.BYPASS.value],
    "failed": [_FAILED, CacheStatus.STALE.value],
}
"""Maps each count that `warm` prints to the cache statuses that it includes.

Every image is counted exactly once.
"""

cache_commands = AppGroup("cache", help="Show, check, repair, empty or warm the disk cache.")


@cache_commands.command()
@as_json_option
def stats(as_json: bool) -> None:
    """Print the number of cached images and the space that they take."""
    cache = components().cache
    with _index_errors_shown():
        totals = cache.totals()
    print_facts(
        as_json,
        {
            "entries": totals.entries,
            "bytes": totals.taken,
            "reserved_bytes": totals.reserved,
            "max_bytes": cache.max_bytes,
        },
    )


@cache_commands.command()
@click.option("--fix", is_flag=True, help="Repair the differences.")
@as_json_option
def check(fix: bool, as_json: bool) -> None:
    """Compare the index with the files. Exit with status 1 if they differ and --fix is not given."""
    cache = components().cache
    with _index_errors_shown(), _progress("Checking", as_json) as progress:
        report = cache.check(fix=fix, progress=progress)
    print_facts(
        as_json,
        {
            "entries": report.entries,
            "rows_without_file": len(report.missing),
            "files_without_row": len(report.strays),
            "bytes_miscounted": report.drift,
            "clean": report.is_clean,
            "fixed": report.fixed and not report.is_clean,
        },
    )
    if not (report.is_clean or fix):
        raise click.exceptions.Exit(1)


@cache_commands.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY…")
@as_json_option
def purge(keys: tuple[str, ...], as_json: bool) -> None:
    """Remove images from the cache. They stay in the store."""
    for key in keys:
        try:
            check_readable(key)
        except AppError as exc:
            raise click.BadParameter(f"{key!r}: {exc.message}") from exc
    with errors_shown():
        purged = sum(components().cache.forget(key) for key in keys)
    print_facts(as_json, {"purged": purged})


@cache_commands.command()
@as_json_option
def clear(as_json: bool) -> None:
    """Remove all images from the cache. They stay in the store."""
    with _index_errors_shown(), _progress("Clearing", as_json) as progress:
        removed = components().cache.clear(progress)
    print_facts(as_json, {"removed": removed})


@cache_commands.command()
@click.option("--prefix", default="", help="Fetch only images whose keys have this prefix.")
@click.option("--concurrency", default=8, show_default=True, type=click.IntRange(1, 64))
@as_json_option
def warm(prefix: str, concurrency: int, as_json: bool) -> None:
    """Fetch images from the store into the cache. Exit with status 1 if any could not be fetched."""
    images = components().images
    listing = images.list_all(prefix)  # it may take many requests, so a progress bar is shown
    with errors_shown(), click.progressbar(listing, label="Listing", show_pos=True, hidden=as_json) as listed:
        listed_keys = [image.key for image in listed]
    keys = [key for key in listed_keys if is_readable(key)]
    if len(keys) < len(listed_keys):
        skipped = len(listed_keys) - len(keys)
        click.echo(f"Skipped {skipped} objects whose keys can't be used in a URL.", err=True)

    def fetch(key: str) -> str:
        try:
            cached = images.fetch(key)
        except AppError:
            return _FAILED
        cached.body.close()
        return cached.status.value

    statuses: Counter[str] = Counter()
    with (
        ThreadPoolExecutor(concurrency) as pool,
        click.progressbar(pool.map(fetch, keys), length=len(keys), label="Warming", hidden=as_json) as bar,
    ):
        statuses.update(bar)
    counts = {fact: sum(statuses[status] for status in included) for fact, included in _WARM_FACTS.items()}
    print_facts(as_json, {"images": len(keys), **counts})
    if counts["failed"]:
        raise click.exceptions.Exit(1)


@contextmanager
def _progress(label: str, as_json: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for the entries of the cache.

    Yield a function that sets how many entries are done.
    """
    try:
        length = components().cache.totals().entries
    except CACHE_ERRORS:
        length = 0  # the command itself reports the error
    with click.progressbar(length=length, label=label, hidden=as_json) as bar:
        yield lambda done: bar.update(done - bar.pos)


@contextmanager
def _index_errors_shown() -> Iterator[None]:
    try:
        yield
    except (*CACHE_ERRORS, CacheUnreadable) as exc:
        reason = exc.detail if isinstance(exc, CacheUnreadable) else exc
        raise click.ClickException(
            f"The index can't be read: {reason}. If it is damaged, flask cache check --fix rebuilds it."
        ) from exc
