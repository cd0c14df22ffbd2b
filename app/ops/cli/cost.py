"""`flask bucket cost`: what the images cost, and what the cache saves."""

import json
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext

from app.api.context import components
from app.core.errors import ConfigError
from app.ops.cli.output import as_json_option, errors_shown
from app.ops.cost import LIST_PRICES, Usage, as_facts, as_lines, estimate, load_prices


class _Share(click.ParamType[Decimal]):
    """A decimal from 0 to 1."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            share = Decimal(value)
        except InvalidOperation:
            share = Decimal("NaN")
        if not (share.is_finite() and 0 <= share <= 1):
            self.fail(f"{value!r} is not a share from 0 to 1, such as 0.95", param, ctx)
        return share


_count = click.IntRange(0, 10**12)

_NOTHING_STORED = """\
There are no images in the store (STORE={store}), so there is nothing to price yet. Say what you expect:

    flask bucket cost --images 10000 --size 500 --views 1000000 --hit-ratio 0.95

for 10,000 images of 500 KB, a million views a month, and a cache that answers 95% of them.
"""
_NOT_AT_S3 = "These images are not in S3, so S3 charges nothing for them: this is what they would cost there."


@click.command()
@click.option("--images", type=_count, help="How many images are stored; without it, those in the store.")
@click.option("--size", type=_count, metavar="KB", help="Their average size, in units of 1,000 bytes.")
@click.option("--views", type=_count, help="How often images are viewed in a month.")
@click.option(
    "--hit-ratio",
    type=_Share(),
    help="The share of views that don't ask S3; without it, the one seen so far.",
)
@click.option(
    "--prices",
    "prices_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=LIST_PRICES,
    metavar="FILE",
    help="Other prices, as app/bucket/prices.json has them.",
)
@as_json_option
@with_appcontext
def cost(
    images: int | None,
    size: int | None,
    views: int | None,
    hit_ratio: Decimal | None,
    prices_path: Path,
    as_json: bool,
) -> None:
    """What S3 charges a month, and what the cache saves of it.

    Without --images and --size the store's images are counted, which lists them all. Without --hit-ratio
    it is that of the requests so far; those that a server in front has answered are not in it.
    """
    try:
        prices = load_prices(prices_path)
    except ConfigError as exc:
        raise click.BadParameter(exc.message, param_hint="--prices") from exc
    counted_here = images is None and size is None
    with errors_shown():
        stored = _counted() if counted_here else _given(images, size)
        ratio, counted = _seen() if hit_ratio is None else (hit_ratio, None)
    usage = Usage(*stored, views, ratio, counted)
    estimated = estimate(usage, prices)
    if as_json:
        click.echo(json.dumps(as_facts(usage, estimated, prices)))
        return
    if counted_here:
        _introduce(usage.images, components().config.store)
    for line in as_lines(usage, estimated, prices):
        click.echo(line)


def _introduce(images: int, store: str) -> None:
    """Say what a count of the store's images means if that is not obvious."""
    if not images:
        click.echo(_NOTHING_STORED.format(store=store))
    elif store != "s3":
        click.echo(_NOT_AT_S3)


def _given(images: int | None, size: int | None) -> tuple[int, int]:
    if images is None or size is None:
        raise click.UsageError(
            "--images and --size go together; without both, the store's images are counted."
        )
    return images, images * size * 1000


def _counted() -> tuple[int, int]:
    """How many images the store holds, and their bytes."""
    images = stored = 0
    for image in components().images.list_all():
        images, stored = images + 1, stored + image.size
    return images, stored


def _seen() -> tuple[Decimal | None, int | None]:
    """The share of requests so far for which the store was not asked, and how many there were; else None."""
    try:
        found = components().cache.counts.totals()
    except OSError:
        return None, None
    saved = found.requests_saved
    requests = saved + found.misses + found.revalidated + found.bypass
    return (Decimal(saved) / requests, requests) if requests else (None, None)
