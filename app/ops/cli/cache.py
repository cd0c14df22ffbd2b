"""`flask cache …`: show, check, repair, empty and warm the disk cache."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import click
from flask.cli import AppGroup

from app.api.context import components
from app.cache.health import CACHE_ERRORS
from app.cache.lookup import CacheStatus
from app.cache.stats import Counts
from app.core.errors import AppError, CacheUnreadable
from app.core.object_keys import check_readable, is_readable
from app.core.variant_keys import can_have_variants
from app.ops.cli.output import as_json_option, errors_shown, print_facts, printable
from app.services.warming import Warmed, Warmer, wanted_variants

T = TypeVar("T")

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
    """Print the number of cached images and variants, and the space that they take."""
    cache = components().cache
    with _index_errors_shown():
        totals, variants = cache.totals(), cache.variant_totals()
    print_facts(
        as_json,
        {
            "entries": totals.entries,
            "bytes": totals.taken,
            "variants": variants.entries,
            "variant_bytes": variants.taken,
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
    """Remove images and their variants from the cache. They stay in the store."""
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
    """Remove all images and variants from the cache. Images stay in the store."""
    with _index_errors_shown(), _progress("Clearing", as_json) as progress:
        removed = components().cache.clear(progress)
    print_facts(as_json, {"removed": removed})


@cache_commands.command()
@click.option("--prefix", default="", help="Only for images whose keys have this prefix.")
@click.option(
    "--variants",
    metavar="NAME,…",
    help="Make these variants of the images instead: names as in URLs, such as thumb,w640.webp. Without an "
    "extension, AVIF and WebP are made. Variants that another machine has stored are fetched.",
)
@click.option("--concurrency", default=8, show_default=True, type=click.IntRange(1, 64))
@as_json_option
def warm(prefix: str, variants: str | None, concurrency: int, as_json: bool) -> None:
    """Fetch images from the store into the cache. Exit with status 1 if any could not be fetched."""
    warmer = None if variants is None else _warmer(variants)
    keys = _listed_keys(prefix, as_json, for_variants=warmer is not None)
    with _evictions_shown():
        if warmer is None:
            counts = _warm_images(keys, concurrency, as_json)
        else:
            counts = _warm_variants(warmer, keys, concurrency, as_json)
    print_facts(as_json, {"images": len(keys), **counts})
    if counts["failed"]:
        raise click.exceptions.Exit(1)


def _listed_keys(prefix: str, as_json: bool, *, for_variants: bool) -> list[str]:
    """Return the keys of all images, and say how many are left out because they can't be requested."""
    listing = components().images.list_all(prefix)  # it may take many requests, so a progress bar is shown
    with errors_shown(), click.progressbar(listing, label="Listing", show_pos=True, hidden=as_json) as listed:
        listed_keys = [image.key for image in listed]
    readable = [key for key in listed_keys if is_readable(key)]
    if len(readable) < len(listed_keys):
        skipped = len(listed_keys) - len(readable)
        click.echo(f"Skipped {skipped} objects whose keys can't be used in a URL.", err=True)
    keys = [key for key in readable if can_have_variants(key)] if for_variants else readable
    if len(keys) < len(readable):
        skipped = len(readable) - len(keys)
        click.echo(f"Skipped {skipped} images whose keys don't end in an image extension.", err=True)
    return keys


def _warm_images(keys: list[str], concurrency: int, as_json: bool) -> dict[str, int]:
    images = components().images

    def fetch(key: str) -> str:
        try:
            cached = images.fetch(key)
        except AppError:
            return _FAILED
        cached.body.close()
        return cached.status.value

    with _mapped(fetch, keys, concurrency, as_json) as results:
        statuses = Counter(results)
    return {fact: sum(statuses[status] for status in included) for fact, included in _WARM_FACTS.items()}


def _warmer(variants: str) -> Warmer:
    parts = components()
    try:
        wanted = wanted_variants(parts.variant_rules, variants)
    except AppError as exc:
        raise click.BadParameter(exc.message, param_hint="--variants") from exc
    if not wanted:
        raise click.BadParameter("names no variant.", param_hint="--variants")
    return Warmer(parts.variants, parts.images.stored_variants, wanted)


def _warm_variants(warmer: Warmer, keys: list[str], concurrency: int, as_json: bool) -> dict[str, int]:
    """Make the variants. Print each image of which a variant could not be made, and the reason."""
    totals: Counter[Warmed] = Counter()
    failures: dict[str, AppError] = {}
    with _mapped(warmer.warm, keys, concurrency, as_json) as results:
        for image in results:
            totals.update(image.counts)
            if image.error is not None:
                failures[image.key] = image.error
    for key, error in failures.items():
        click.echo(f"failed: {printable(key)}: {error}", err=True)
    return {outcome.value: totals[outcome] for outcome in Warmed}


@contextmanager
def _mapped(
    work: Callable[[str], T], keys: list[str], concurrency: int, as_json: bool
) -> Iterator[Iterator[T]]:
    """Yield an iterator over the results of `work`, in which the keys are processed with a progress bar."""
    with (
        ThreadPoolExecutor(concurrency) as pool,
        click.progressbar(pool.map(work, keys), length=len(keys), label="Warming", hidden=as_json) as bar,
    ):
        yield iter(bar)


@contextmanager
def _evictions_shown() -> Iterator[None]:
    """After the block, say how many entries of the cache were evicted during the block, if there are any."""
    counts = components().cache.counts
    before = _evicted(counts)
    yield
    if evicted := _evicted(counts) - before:
        click.echo(
            f"The cache is full: {evicted} entries were evicted in the meantime. If you need them, increase "
            "CACHE_MAX_BYTES.",
            err=True,
        )


def _evicted(counts: Counts) -> int:
    try:
        return counts.totals().evicted
    except OSError:
        return 0


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
