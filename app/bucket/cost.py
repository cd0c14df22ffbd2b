"""What images cost in S3 a month, and what the cache saves of it. Pure arithmetic, in decimals.

The cache spares S3 requests. Whether it spares transfer depends on where the server runs: S3 sends to EC2
in its own region for nothing, and what EC2 then sends to the internet costs as much as if S3 had sent it;
to a server elsewhere S3 sends over the internet, but only what the cache does not hold
(https://aws.amazon.com/s3/pricing/, "Data transfer").
"""

from dataclasses import dataclass
from decimal import Decimal

from app.bucket.prices import Prices


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
