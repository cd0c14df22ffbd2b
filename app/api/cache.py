"""/api/cache: what the cache holds, and what it has saved."""

import sqlite3
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from app.api.arguments import Blueprint
from app.api.parts import KEYED, key_required, parts
from app.api.schemas import CacheSchema
from app.bucket.prices import load_prices
from app.errors import CacheUnreadable

GET_USD_PER_MILLION = float(load_prices().get_requests.cost(Decimal(1_000_000)))
"""What S3 takes for a million GET requests by `app/bucket/prices.json`."""

blueprint = Blueprint("cache", __name__, url_prefix="/api/cache", description="What the cache saves")


@blueprint.route("", methods=["GET"])
@key_required("list")
@blueprint.doc(security=KEYED)
@blueprint.response(200, CacheSchema)
def figures() -> dict[str, Any]:
    """How full the cache is, and how requests were answered since its directory was made."""
    cache = parts().cache
    try:
        held, counted = cache.totals(), cache.counts.totals()
    except (OSError, sqlite3.Error) as exc:
        raise CacheUnreadable(detail=f"{type(exc).__name__}: {exc}") from exc
    saved = counted.requests_saved
    return {
        "success": True,
        "message": f"{saved} request{'' if saved == 1 else 's'} to the store saved",
        "entries": held.entries,
        "bytes": held.taken,
        "max_bytes": cache.max_bytes,
        **asdict(counted),
        "requests_saved": saved,
        "saved_usd": saved * GET_USD_PER_MILLION / 1_000_000,
        "get_usd_per_million": GET_USD_PER_MILLION,
    }
