"""What requests that the cache answered would have cost, at S3 Standard's price in us-east-1."""

from decimal import Decimal

from app.bucket.prices import load_prices

_GETS = load_prices().get_requests


def saved_usd(requests: int) -> float:
    """What S3 takes for so many GET requests, in US dollars, by `app/bucket/prices.json`."""
    return float(_GETS.cost(Decimal(requests)))


GET_USD_PER_MILLION = saved_usd(1_000_000)
"""The price that is told beside what was saved."""
