"""An estimate of costs as a table, or as JSON.

What S3 charges, read from a file: `prices.json` beside this one, or one's own of the same shape.

What images cost in S3 a month, and what the cache saves of it. Pure arithmetic, in decimals.

The cache spares S3 requests. Whether it spares transfer depends on where the server runs: S3 sends to EC2
in its own region for nothing, and what EC2 then sends to the internet costs as much as if S3 had sent it;
to a server elsewhere S3 sends over the internet, but only what the cache does not hold
(https://aws.amazon.com/s3/pricing/, "Data transfer").
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from marshmallow import Schema, ValidationError, post_load, validates_schema
from marshmallow import fields as ma
from marshmallow.validate import Length, Range

from app.core.errors import ConfigError

LIST_PRICES = Path(__file__).with_name("prices.json")


@dataclass(frozen=True, slots=True)
class Tier:
    """The price of every unit up to `up_to` a month; None: of all that are left."""

    price: Decimal
    up_to: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """What a month's units cost; the tiers' prices are for `per` units each."""

    tiers: tuple[Tier, ...]
    per: int = 1

    def cost(self, units: Decimal) -> Decimal:
        """Each tier's price for the units that fall into it."""
        total, below = Decimal(0), Decimal(0)
        for tier in self.tiers:
            top = units if tier.up_to is None else min(units, tier.up_to)
            total += max(top - below, Decimal(0)) * tier.price
            below = top
        return total / self.per


@dataclass(frozen=True, slots=True)
class Prices:
    """The rates of one region: storage and transfer by the GB, requests by their number."""

    date: date
    source: str
    region: str
    currency: str
    notes: tuple[str, ...]
    bytes_per_gb: int
    storage: Rate
    put_requests: Rate
    get_requests: Rate
    transfer_out: Rate


def load_prices(path: Path = LIST_PRICES) -> Prices:
    """The prices in `path`; raises `ConfigError` that says what is wrong with them."""
    try:
        loaded: Prices = _PricesSchema().load(json.loads(path.read_bytes(), parse_float=Decimal))
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    except ValidationError as exc:
        raise ConfigError(f"{path} is not a list of prices: {json.dumps(exc.messages)}") from exc
    except ValueError as exc:
        raise ConfigError(f"{path} is not JSON: {exc}") from exc
    return loaded


class _TierSchema(Schema):
    price = ma.Decimal(required=True, validate=Range(min=0))
    up_to = ma.Decimal(load_default=None, allow_none=True)

    @post_load
    def _make(self, values: dict[str, Any], **_: Any) -> Tier:
        return Tier(**values)


class _RateSchema(Schema):
    per = ma.Integer(load_default=1, validate=Range(min=1))
    tiers = ma.List(ma.Nested(_TierSchema), required=True, validate=Length(min=1))

    @validates_schema
    def _rising(self, values: dict[str, Any], **_: Any) -> None:
        tiers: list[Tier] = values["tiers"]
        tops = [tier.up_to for tier in tiers[:-1]]
        rising = sorted({top for top in tops if top is not None and top > 0})
        if tops != rising or tiers[-1].up_to is not None:
            raise ValidationError("up_to must rise from tier to tier, and the last tier has none", "tiers")

    @post_load
    def _make(self, values: dict[str, Any], **_: Any) -> Rate:
        return Rate(tuple(values["tiers"]), values["per"])


class _PricesSchema(Schema):
    date = ma.Date(required=True)
    source = ma.String(required=True)
    region = ma.String(required=True)
    currency = ma.String(required=True)
    notes = ma.List(ma.String(), load_default=[])
    bytes_per_gb = ma.Integer(required=True, validate=Range(min=1))
    storage = ma.Nested(_RateSchema, required=True)
    put_requests = ma.Nested(_RateSchema, required=True)
    get_requests = ma.Nested(_RateSchema, required=True)
    transfer_out = ma.Nested(_RateSchema, required=True)

    @post_load
    def _make(self, values: dict[str, Any], **_: Any) -> Prices:
        return Prices(**values | {"notes": tuple(values["notes"])})


@dataclass(frozen=True, slots=True)
class Usage:
    """A month's use: images stored and their bytes altogether, and how often they are viewed.

    `hit_ratio`, from 0 to 1, is the share of views for which S3 is not asked; `counted` are the requests that
    it was counted from, if it was. None is what isn't known.
    """

    images: int
    stored_bytes: int
    views: int | None = None
    hit_ratio: Decimal | None = None
    counted: int | None = None


@dataclass(frozen=True, slots=True)
class Bill:
    """A month's charges; None where they can't be known."""

    storage: Decimal
    get_requests: Decimal | None = None
    transfer_out: Decimal | None = None

    @property
    def total(self) -> Decimal | None:
        """Their sum."""
        if self.get_requests is None or self.transfer_out is None:
            return None
        return self.storage + self.get_requests + self.transfer_out


@dataclass(frozen=True, slots=True)
class Estimate:
    """What `upload` costs once, and three bills for the same views.

    `without_cache`: S3 is asked for each. `in_aws` and `elsewhere`: with the cache, on a server in the
    bucket's region of AWS, or on one outside; None where the hit ratio isn't known.
    """

    upload: Decimal
    without_cache: Bill
    in_aws: Bill | None
    elsewhere: Bill | None

    def saved(self, bill: Bill) -> Decimal | None:
        """What `bill` is lower by than the one without the cache."""
        if bill.total is None or self.without_cache.total is None:
            return None
        return self.without_cache.total - bill.total


def estimate(usage: Usage, prices: Prices) -> Estimate:
    """What `usage` costs at `prices`."""
    storage = prices.storage.cost(Decimal(usage.stored_bytes) / prices.bytes_per_gb)
    upload = prices.put_requests.cost(Decimal(usage.images))
    if usage.views is None:
        return Estimate(upload, Bill(storage), None, None)
    views = Decimal(usage.views)
    sent = _transfer(usage, views, prices)
    without = Bill(storage, prices.get_requests.cost(views), sent)
    if usage.hit_ratio is None:
        return Estimate(upload, without, None, None)
    misses = views * (1 - usage.hit_ratio)
    asked = prices.get_requests.cost(misses)
    return Estimate(
        upload,
        without,
        in_aws=Bill(storage, asked, sent),
        elsewhere=Bill(storage, asked, _transfer(usage, misses, prices)),
    )


def _transfer(usage: Usage, times: Decimal, prices: Prices) -> Decimal:
    """What it costs to send an image of average size so many times to the internet."""
    average = Decimal(usage.stored_bytes) / usage.images if usage.images else Decimal(0)
    return prices.transfer_out.cost(times * average / prices.bytes_per_gb)


_COLUMNS = {
    "without_cache": "without cache",
    "cache_in_aws": "cache in AWS",
    "cache_elsewhere": "cache elsewhere",
}

_ROWS = {
    "storage": "storage",
    "get_requests": "GET requests",
    "transfer_out": "transfer out",
    "total": "a month",
    "saved": "saved",
}

_IN_AWS = (
    "Cache in AWS: on a server in the bucket's region. S3 sends to it for nothing, and what it sends on costs"
    " what S3 would charge for that."
)
_ELSEWHERE = "Cache elsewhere: what that server sends is its host's price, and not in here."


def as_facts(usage: Usage, estimate: Estimate, prices: Prices) -> dict[str, Any]:
    """For JSON. Amounts are strings, to the cent; null where they can't be known."""
    return {
        "images": usage.images,
        "bytes": usage.stored_bytes,
        "views": usage.views,
        "hit_ratio": None if usage.hit_ratio is None else float(usage.hit_ratio),
        "hit_ratio_counted_from": usage.counted,
        "upload_once": _cents(estimate.upload),
        "without_cache": _charges(estimate.without_cache),
        "cache_in_aws": _with_saving(estimate, estimate.in_aws),
        "cache_elsewhere": _with_saving(estimate, estimate.elsewhere),
        "prices": {
            "date": prices.date.isoformat(),
            "source": prices.source,
            "region": prices.region,
            "currency": prices.currency,
        },
    }


def as_lines(usage: Usage, estimate: Estimate, prices: Prices) -> Iterator[str]:
    """For people."""
    yield from _premises(usage, prices)
    yield ""
    yield from _table(as_facts(usage, estimate, prices))
    yield ""
    yield f"Uploading them costs {_cents(estimate.upload)} once."
    yield from _notes(estimate, prices)


def _table(facts: dict[str, Any]) -> Iterator[str]:
    columns = [name for name in _COLUMNS if facts[name]]
    yield _line("", [_COLUMNS[name] for name in columns])
    for row, label in _ROWS.items():
        cells = [facts[name].get(row, "") for name in columns]
        if any(cell != "" for cell in cells):
            yield _line(label, ["?" if cell is None else cell for cell in cells])


def _line(label: str, cells: list[str]) -> str:
    return f"{label:14}" + "".join(f"{cell:>17}" for cell in cells)


def _premises(usage: Usage, prices: Prices) -> Iterator[str]:
    yield f"{usage.images:,} images, {usage.stored_bytes:,} bytes"
    if usage.views is None:
        yield "How often they are viewed is not known: --views N says it."
    else:
        yield f"{usage.views:,} views a month"
    if usage.hit_ratio is None:
        yield "How many views the cache answers is not known: --hit-ratio says it, and shows what is saved."
    else:
        yield f"{usage.hit_ratio:.1%} of the views answered by the cache{_source(usage)}"
    yield f"{prices.currency}, {prices.region}, {prices.date}, {prices.source}"


def _source(usage: Usage) -> str:
    if usage.counted is None:
        return ""
    return f", as in {usage.counted:,} requests so far (--hit-ratio says otherwise)"


def _notes(estimate: Estimate, prices: Prices) -> Iterator[str]:
    if estimate.in_aws:
        yield from (_IN_AWS, _ELSEWHERE)
    yield from prices.notes


def _charges(bill: Bill) -> dict[str, str | None]:
    return {
        "storage": _cents(bill.storage),
        "get_requests": _cents(bill.get_requests),
        "transfer_out": _cents(bill.transfer_out),
        "total": _cents(bill.total),
    }


def _with_saving(estimate: Estimate, bill: Bill | None) -> dict[str, str | None] | None:
    return None if bill is None else _charges(bill) | {"saved": _cents(estimate.saved(bill))}


def _cents(amount: Decimal | None) -> str | None:
    return None if amount is None else str(amount.quantize(Decimal("0.01"), ROUND_HALF_UP))
