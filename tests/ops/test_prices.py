"""The file of prices."""

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import ConfigError
from app.ops.cost import LIST_PRICES, Rate, Tier, load_prices

STORAGE = load_prices().storage
OUT = load_prices().transfer_out


@pytest.mark.parametrize(
    ("rate", "units", "dollars"),
    [
        (STORAGE, 0, "0"),
        (STORAGE, 1, "0.023"),
        (STORAGE, 51_200, "1177.6"),
        (STORAGE, 51_201, "1177.622"),
        (STORAGE, 512_001, "11315.221"),
        (OUT, 100, "0"),
        (OUT, 101, "0.09"),
        (OUT, 10_240, "912.6"),
        (OUT, 153_601, "11562.25"),
        (Rate((Tier(Decimal(2)),), per=1000), 500, "1"),
    ],
)
def test_each_tier_has_its_price(rate: Rate, units: int, dollars: str) -> None:
    assert rate.cost(Decimal(units)) == Decimal(dollars)


def test_the_prices_say_where_they_are_from() -> None:
    prices = load_prices()
    assert (prices.source, prices.region) == ("https://aws.amazon.com/s3/pricing/", "us-east-1")
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", prices.date.isoformat())


def _without(name: str) -> dict[str, Any]:
    given = json.loads(LIST_PRICES.read_bytes())
    del given[name]
    return dict(given)


def _with_tiers(*tiers: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {**json.loads(LIST_PRICES.read_bytes()), "storage": {"tiers": tiers, **others}}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "Invalid input type"),
        (_without("storage"), '"storage": ["Missing data'),
        (_without("date"), '"date": ["Missing data'),
        (_without("storage") | {"sotrage": {}}, '"sotrage": ["Unknown field'),
        (_with_tiers(), "Shorter than minimum length 1"),
        (_with_tiers({"price": "-1"}), "Must be greater than or equal to 0"),
        (_with_tiers({"price": "NaN"}), "Special numeric values"),
        (_with_tiers({"price": "a lot"}), "Not a valid number"),
        (_with_tiers({"price": "1"}, per=0), "Must be greater than or equal to 1"),
        (_with_tiers({"price": "1", "up_to": 5}), "up_to must rise"),
        (_with_tiers({"price": "1"}, {"price": "2"}), "up_to must rise"),
        (
            _with_tiers({"price": "1", "up_to": 5}, {"price": "1", "up_to": 4}, {"price": "2"}),
            "up_to must rise",
        ),
        (
            _with_tiers({"price": "1", "up_to": 5}, {"price": "1", "up_to": 5}, {"price": "2"}),
            "up_to must rise",
        ),
        (_with_tiers({"price": "1", "up_to": 0}, {"price": "2"}), "up_to must rise"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, given: Any, told: str) -> None:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(given), encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(told)):
        load_prices(path)


@pytest.mark.parametrize(("data", "told"), [(b"{", "is not JSON"), (b"\xff\xfe\xff", "is not JSON")])
def test_what_is_not_json_is_refused(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "prices.json").write_bytes(data)
    with pytest.raises(ConfigError, match=told):
        load_prices(tmp_path / "prices.json")
    with pytest.raises(ConfigError, match="No such file"):
        load_prices(tmp_path / "none.json")
