"""/api/cache: what the cache holds, and what it has saved."""

import sqlite3
from dataclasses import asdict
from typing import Any

from app.api.arguments import Blueprint
from app.api.parts import KEYED, key_required, parts
from app.api.schemas import CacheSchema
from app.bucket.savings import GET_USD_PER_MILLION, saved_usd
from app.errors import CacheUnreadable

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
        "saved_usd": saved_usd(saved),
        "get_usd_per_million": GET_USD_PER_MILLION,
    }
