"""Calls for operators: `/healthz`, `/readyz`, `/metrics` and `/api/cache`."""

import sqlite3
import time
from dataclasses import asdict
from typing import Any

from flask import Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from app.api.arguments import Blueprint, any_query
from app.api.auth import KEY_SECURITY, key_required
from app.api.context import components
from app.api.schemas import CacheSchema, ReadinessSchema, ResponseSchema
from app.cache.stats import GET_USD_PER_MILLION
from app.core.errors import CacheUnreadable
from app.core.request_context import STARTED
from app.observability.metrics import UNROUTED, Metrics

_TRY_AGAIN = {"Retry-After": "5"}

blueprint = Blueprint("health", __name__, description="For load balancers")


@blueprint.route("/healthz", methods=["GET"])
@any_query
@blueprint.response(200, ResponseSchema)
def alive() -> dict[str, Any]:
    """Report that the process is running.

    The store and the cache are not checked, since a restart would not solve their problems.
    """
    return {"success": True, "message": "alive"}


@blueprint.route("/readyz", methods=["GET"])
@any_query
@blueprint.response(200, ReadinessSchema)
@blueprint.alt_response(
    503, schema=ReadinessSchema, description="The store has failed and the cache is empty"
)
def ready() -> tuple[dict[str, Any], int, dict[str, str]]:
    """Report whether the server is ready.

    It is ready if the store works, or if images can be served from the cache.
    """
    found = components().readiness.check()
    fields: dict[str, Any] = {
        "success": found.ready,
        "message": _message(found.ready, found.store, found.cache),
        "store": found.store,
        "cache": found.cache,
    }
    if found.ready:
        return fields, 200, {}
    return {**fields, "code": found.code}, 503, _TRY_AGAIN


def _message(ready: bool, store: str, cache: str) -> str:
    notes = ["ready" if ready else "not ready"]
    if store != "ok":
        notes.append(f"the store is {store}" + (", images in the cache are served" if ready else ""))
    if cache != "ok":
        notes.append(f"the cache directory is {cache}")
    return "; ".join(notes)


cache_blueprint = Blueprint("cache", __name__, url_prefix="/api/cache", description="Cache statistics")


@cache_blueprint.route("", methods=["GET"])
@key_required("list")
@cache_blueprint.doc(security=KEY_SECURITY)
@cache_blueprint.response(200, CacheSchema)
def figures() -> dict[str, Any]:
    """Return the size of the cache, and request counts since the cache directory was created."""
    cache = components().cache
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


metrics_blueprint = Blueprint("metrics", __name__, description="For Prometheus")


@metrics_blueprint.route("/metrics", methods=["GET"])
@key_required("metrics")
@metrics_blueprint.doc(
    security=KEY_SECURITY,
    responses={"200": {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics"}},
)
def metrics() -> Response:
    """Return the metrics of all workers in the text format of Prometheus."""
    text = components().metrics.exposition()
    return Response(text, content_type=CONTENT_TYPE_PLAIN_0_0_4, headers={"Cache-Control": "no-store"})


def count_requests(flask: Flask, metrics: Metrics) -> None:
    """Make `metrics` count every request that Flask answers, and measure how long the request takes."""

    def count(response: Response) -> Response:
        route = request.endpoint or UNROUTED
        metrics.requests.labels(route, response.status_code).inc()
        now = time.perf_counter()
        metrics.request_seconds.labels(route).observe(now - request.environ.get(STARTED, now))
        if "error_code" in g:
            metrics.count_error(route, g.error_code)
        return response

    flask.after_request(count)
