"""`flask cache …`: look into the cache, mend it, empty it, warm it."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import click
from flask.cli import AppGroup

from app.api.parts import parts
from app.cli.output import as_json_option, errors_told, print_facts
from app.errors import AppError
from app.keys import check_readable

cache_commands = AppGroup("cache", help="Look into the disk cache, mend it, empty it, warm it.")


@cache_commands.command()
@as_json_option
def stats(as_json: bool) -> None:
    """How much the cache holds."""
    cache = parts().cache
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
    cache = parts().cache
    with click.progressbar(length=cache.totals().entries, label="Checking", hidden=as_json) as bar:
        report = cache.check(fix=fix, progress=lambda done: bar.update(done - bar.pos))
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
    print_facts(as_json, {"purged": sum(parts().cache.forget(key) for key in keys)})


@cache_commands.command()
@as_json_option
def clear(as_json: bool) -> None:
    """Remove all images from the cache; the store keeps them."""
    print_facts(as_json, {"removed": parts().cache.clear()})


@cache_commands.command()
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option("--concurrency", default=8, show_default=True, type=click.IntRange(1, 64))
@as_json_option
def warm(prefix: str, concurrency: int, as_json: bool) -> None:
    """Bring the store's images into the cache; status 1 where some could not be had."""
    service = parts().service
    keys = _listed(prefix, as_json)

    def bring(key: str) -> str:
        try:
            cached = service.fetch(key)
        except AppError:
            return "failed"
        cached.body.close()
        return cached.status.value

    outcomes: Counter[str] = Counter()
    with (
        ThreadPoolExecutor(concurrency) as pool,
        click.progressbar(pool.map(bring, keys), length=len(keys), label="Warming", hidden=as_json) as bar,
    ):
        outcomes.update(bar)
    print_facts(
        as_json,
        {
            "images": len(keys),
            "brought": outcomes["miss"],
            "there_already": outcomes["hit"],
            "without_room": outcomes["bypass"],
            "failed": outcomes["failed"],
        },
    )
    if outcomes["failed"]:
        raise click.exceptions.Exit(1)


def _listed(prefix: str, as_json: bool) -> list[str]:
    """The keys of the store's images, counted while they come: there may be many pages of them."""
    found = parts().service.list_all(prefix)
    with errors_told(), click.progressbar(found, label="Listing", show_pos=True, hidden=as_json) as bar:
        return [image.key for image in bar]
