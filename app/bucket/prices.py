"""What S3 charges, read from a file: `prices.json` beside this one, or one's own of the same shape."""

import json
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from marshmallow import Schema, ValidationError, post_load, validates_schema
from marshmallow import fields as ma
from marshmallow.validate import Length, Range

from app.errors import ConfigError

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
