"""What images cost, and what the cache saves."""

from decimal import Decimal

import pytest

from app.ops.cost import Bill, Usage, estimate, load_prices

PRICES = load_prices()
GB = 10**9


def _dollars(bill: Bill | None) -> tuple[Decimal | None, ...]:
    assert bill is not None
    return (bill.storage, bill.get_requests, bill.transfer_out, bill.total)


def _decimals(*numbers: str) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, numbers))


def test_the_cache_spares_requests_everywhere_and_transfer_only_outside_aws() -> None:
    found = estimate(Usage(10_000, 5 * GB, 1_000_000, Decimal("0.6")), PRICES)
    assert found.upload == Decimal("0.05")
    assert _dollars(found.without_cache) == _decimals("0.115", "0.4", "36", "36.515")
    assert _dollars(found.in_aws) == _decimals("0.115", "0.16", "36", "36.275")
    assert _dollars(found.elsewhere) == _decimals("0.115", "0.16", "9", "9.275")
    assert found.in_aws is not None
    assert found.elsewhere is not None
    assert found.saved(found.in_aws) == Decimal("0.24")
    assert found.saved(found.elsewhere) == Decimal("27.24")


def test_what_is_not_known_is_not_claimed() -> None:
    without_views = estimate(Usage(10_000, 5 * GB, hit_ratio=Decimal("0.9")), PRICES)
    assert _dollars(without_views.without_cache) == (Decimal("0.115"), None, None, None)
    assert (without_views.in_aws, without_views.elsewhere) == (None, None)
    assert without_views.saved(without_views.without_cache) is None
    without_ratio = estimate(Usage(10_000, 5 * GB, 100_000), PRICES)
    assert _dollars(without_ratio.without_cache) == _decimals("0.115", "0.04", "0", "0.155")
    assert (without_ratio.in_aws, without_ratio.elsewhere) == (None, None)


@pytest.mark.parametrize("ratio", ["0", "1"])
def test_the_bounds_of_the_hit_ratio(ratio: str) -> None:
    found = estimate(Usage(1, GB, 1000, Decimal(ratio)), PRICES)
    expected = found.without_cache if ratio == "0" else Bill(Decimal("0.023"), Decimal(0), Decimal(0))
    assert found.elsewhere == expected


def test_an_empty_store_costs_nothing_but_the_asking() -> None:
    assert _dollars(estimate(Usage(0, 0, 1000), PRICES).without_cache) == _decimals(
        "0", "0.0004", "0", "0.0004"
    )
