"""/metrics, and what is counted of every request."""

import time

from flask import Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from app.api.arguments import Blueprint
from app.api.parts import KEYED, key_required, parts
from app.environ import BEGAN
from app.metrics import Metrics
from app.metrics.catalogue import UNROUTED

blueprint = Blueprint("metrics", __name__, description="For Prometheus")


@blueprint.route("/metrics", methods=["GET"])
@key_required("metrics")
@blueprint.doc(
    security=KEYED,
    responses={"200": {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Metrics"}},
)
def metrics() -> Response:
    """The metrics of all workers."""
    text = parts().metrics.exposition()
    return Response(text, content_type=CONTENT_TYPE_PLAIN_0_0_4, headers={"Cache-Control": "no-store"})


def count_requests(flask: Flask, metrics: Metrics) -> None:
    """Count every request that Flask answers."""

    def count(response: Response) -> Response:
        route = request.endpoint or UNROUTED
        metrics.requests.labels(route, response.status_code).inc()
        now = time.perf_counter()
        metrics.request_seconds.labels(route).observe(now - request.environ.get(BEGAN, now))
        if "error_code" in g:
            metrics.errors.labels(route, g.error_code).inc()
        return response

    flask.after_request(count)
