"""`flask bucket cost`: estimate what S3 charges for the stored images.

The estimate assumes that S3 serves every view. In practice, the server's cache serves most views, which saves
GET requests. Outside AWS, the cache also saves data transfer. Inside AWS it does not: transfer from S3 to EC2
in the same region is free, and EC2 pays the same price as S3 for transfer to the internet
(https://aws.amazon.com/s3/pricing/, "Data transfer").

The prices are in `prices.json`. Each rate has a list of tiers. A tier applies up to the monthly amount
`up_to`, and its price is for `per` units.
"""

import json
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import click
from flask.cli import with_appcontext

from app.api.context import components
from app.ops.cli.output import as_json_option, errors_shown

PRICES: dict[str, Any] = json.loads(Path(__file__).with_name("prices.json").read_bytes())

_NO_IMAGES = """\
The store contains no images yet (STORE={store}). Pass the numbers that you expect, for example:

    flask bucket cost --images 10000 --size 500 --views 1000000

for 10,000 images of 500 KB and a million views a month.
"""
_NOT_IN_S3 = "These images are not in S3. The estimate is what they would cost there."
_CACHE_NOTE = (
    "These are the charges if S3 serves every view. The cache saves most of the GET requests. If the server "
    "runs outside AWS, the cache also saves data transfer."
)
_ROWS = {
    "storage": "storage",
    "get_requests": "GET requests",
    "transfer_out": "transfer out",
    "total": "per month",
}

_count = click.IntRange(0, 10**12)


@click.command()
@click.option(
    "--images", type=_count, help="Number of stored images. Default: count the images in the store."
)
@click.option("--size", type=_count, metavar="KB", help="Their average size, in units of 1,000 bytes.")
@click.option("--views", type=_count, help="Number of views per month.")
@as_json_option
@with_appcontext
def cost(images: int | None, size: int | None, views: int | None, as_json: bool) -> None:
    """Estimate what S3 charges for the images: once for the uploads, and monthly for storage and views.

    Without --images and --size, all images in the store are listed and counted.
    """
    note = ""
    if images is not None and size is not None:
        stored_bytes = images * size * 1000
    elif images is None and size is None:
        with errors_shown():
            sizes = [image.size for image in components().images.list_all()]
        images, stored_bytes = len(sizes), sum(sizes)
        store = components().config.store
        if not images:
            note = _NO_IMAGES.format(store=store)
        elif store != "s3":
            note = _NOT_IN_S3
    else:
        raise click.UsageError(
            "Pass both --images and --size, or neither of them to count the images in the store."
        )
    estimate = estimate_cost(images, stored_bytes, views)
    if as_json:
        click.echo(json.dumps(estimate))
    else:
        click.echo("\n".join([*([note] if note else []), *_lines(estimate)]))


def estimate_cost(images: int, stored_bytes: int, views: int | None) -> dict[str, Any]:
    """Return the estimate that `--json` prints. The amounts are strings, rounded to the cent.

    If `views` is None, the amounts that depend on the number of views are None.
    """
    gigabyte = PRICES["bytes_per_gb"]
    storage = price("storage", Decimal(stored_bytes) / gigabyte)
    requests = transfer = total = None
    if views is not None:
        requests = price("get_requests", Decimal(views))
        average = Decimal(stored_bytes) / max(images, 1)
        transfer = price("transfer_out", views * average / gigabyte)
        total = storage + requests + transfer
    return {
        "images": images,
        "bytes": stored_bytes,
        "views": views,
        "upload_once": _cents(price("put_requests", Decimal(images))),
        "without_cache": {
            "storage": _cents(storage),
            "get_requests": _cents(requests),
            "transfer_out": _cents(transfer),
            "total": _cents(total),
        },
        "prices": {name: PRICES[name] for name in ("date", "source", "region", "currency")},
    }


def price(name: str, units: Decimal) -> Decimal:
    """Return the monthly price of this many units. `name` is the name of a rate, such as `storage`."""
    rate: dict[str, Any] = PRICES[name]
    total = below = Decimal(0)
    for tier in rate["tiers"]:
        top = min(units, Decimal(tier.get("up_to", units)))
        total += (top - below) * Decimal(tier["price"])
        below = top
    return total / int(rate.get("per", 1))


def _cents(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount.quantize(Decimal("0.01"), ROUND_HALF_UP))


def _lines(estimate: dict[str, Any]) -> Iterator[str]:
    yield f"{estimate['images']:,} images, {estimate['bytes']:,} bytes"
    if estimate["views"] is None:
        yield "The number of views is unknown: pass --views."
    else:
        yield f"{estimate['views']:,} views per month"
    yield ", ".join((PRICES["currency"], PRICES["region"], PRICES["date"], PRICES["source"]))
    yield ""
    for name, label in _ROWS.items():
        yield f"{label:14}{estimate['without_cache'][name] or '?':>12}"
    yield ""
    yield f"Uploading the images costs {estimate['upload_once']} once."
    yield _CACHE_NOTE
    yield from PRICES["notes"]
