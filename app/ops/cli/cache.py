"""`flask cache …`: look into the cache, mend it, empty it, warm it."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import click
from flask.cli import AppGroup

from app.api.context import components
from app.cache.health import OUT_OF_ORDER
from app.cache.lookup import CacheStatus
from app.core.errors import AppError, CacheUnreadable
from app.core.object_keys import check_readable, is_readable
from app.ops.cli.output import as_json_option, errors_shown, print_facts

_FAILED = "failed"

_ACCOUNT = {
    "brought": [CacheStatus.MISS.value],
    "there_already": [CacheStatus.HIT.value, CacheStatus.REVALIDATED.value, CacheStatus.COLLAPSED.value],
    "without_room": [CacheStatus.BYPASS.value],
    "failed": [_FAILED, CacheStatus.STALE.value],
}
"""What is told of a warming, and of which outcomes it is made: each image counts once."""

cache_commands = AppGroup("cache", help="Show, check, purge or warm the disk cache.")


@cache_commands.command()
@as_json_option
def stats(as_json: bool) -> None:
    """How much the cache holds."""
    cache = components().cache
    with _index_errors_told():
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
@click.option("--fix", is_flag=True, help="Mend what is found.")
@as_json_option
def check(fix: bool, as_json: bool) -> None:
    """Compare the index with the files; status 1 where they differ and it was not mended."""
    cache = components().cache
    with _index_errors_told(), _counting("Checking", as_json) as progress:
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
    """Remove images from the cache; the store keeps them."""
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
    """Remove all images from the cache; the store keeps them."""
    with _index_errors_told(), _counting("Clearing", as_json) as progress:
        removed = components().cache.clear(progress)
    print_facts(as_json, {"removed": removed})


@cache_commands.command()
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option("--concurrency", default=8, show_default=True, type=click.IntRange(1, 64))
@as_json_option
def warm(prefix: str, concurrency: int, as_json: bool) -> None:
    """Bring the store's images into the cache; status 1 where some could not be had."""
    service = components().images
    listed = _listed(prefix, as_json)
    keys = [key for key in listed if is_readable(key)]
    if len(keys) < len(listed):
        unsafe = len(listed) - len(keys)
        click.echo(f"Left out {unsafe} whose keys no URL can name safely: nobody can ask for them.", err=True)

    def bring(key: str) -> str:
        try:
            cached = service.fetch(key)
        except AppError:
            return _FAILED
        cached.body.close()
        return cached.status.value

    outcomes: Counter[str] = Counter()
    with (
        ThreadPoolExecutor(concurrency) as pool,
        click.progressbar(pool.map(bring, keys), length=len(keys), label="Warming", hidden=as_json) as bar,
    ):
        outcomes.update(bar)
    account = {name: sum(outcomes[one] for one in found) for name, found in _ACCOUNT.items()}
    print_facts(as_json, {"images": len(keys), **account})
    if account["failed"]:
        raise click.exceptions.Exit(1)


@contextmanager
def _counting(label: str, as_json: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar over the cache's entries, which is told how many are done."""
    try:
        length = components().cache.totals().entries
    except OUT_OF_ORDER:
        length = 0  # the work itself will say what is wrong
    with click.progressbar(length=length, label=label, hidden=as_json) as bar:
        yield lambda done: bar.update(done - bar.pos)


@contextmanager
def _index_errors_told() -> Iterator[None]:
    try:
        yield
    except (*OUT_OF_ORDER, CacheUnreadable) as exc:
        reason = exc.detail if isinstance(exc, CacheUnreadable) else exc
        raise click.ClickException(
            f"The index can't be read: {reason}. Where it is damaged, flask cache check --fix rebuilds it."
        ) from exc


def _listed(prefix: str, as_json: bool) -> list[str]:
    """The keys of the store's images, counted while they come: there may be many pages of them."""
    found = components().images.list_all(prefix)
    with errors_shown(), click.progressbar(found, label="Listing", show_pos=True, hidden=as_json) as bar:
        return [image.key for image in bar]
