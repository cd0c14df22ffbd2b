"""An estimate of costs as a table, or as JSON."""

from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from app.bucket.cost import Bill, Estimate, Usage
from app.bucket.prices import Prices

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
