"""/healthz and /readyz, for load balancers and orchestrators."""

from typing import Any

from app.api.arguments import Blueprint, any_query
from app.api.parts import parts
from app.api.schemas import AnswerSchema, ReadinessSchema

_TRY_AGAIN = {"Retry-After": "5"}

blueprint = Blueprint("health", __name__, description="For load balancers")


@blueprint.route("/healthz", methods=["GET"])
@any_query
@blueprint.response(200, AnswerSchema)
def alive() -> dict[str, Any]:
    """The process answers; neither store nor cache is looked at, for which no restart would help."""
    return {"success": True, "message": "alive"}


@blueprint.route("/readyz", methods=["GET"])
@any_query
@blueprint.response(200, ReadinessSchema)
@blueprint.alt_response(503, schema=ReadinessSchema, description="The store is out of reach, the cache empty")
def ready() -> tuple[dict[str, Any], int, dict[str, str]]:
    """The store answers, or there are images in the cache to serve meanwhile."""
    found = parts().readiness.look()
    answer: dict[str, Any] = {
        "success": found.ready,
        "message": _message(found.ready, found.store, found.cache),
        "store": found.store,
        "cache": found.cache,
    }
    if found.ready:
        return answer, 200, {}
    return {**answer, "code": found.code}, 503, _TRY_AGAIN


def _message(ready: bool, store: str, cache: str) -> str:
    notes = ["ready" if ready else "not ready"]
    if store != "ok":
        notes.append(f"the store is {store}" + (", images in the cache are served" if ready else ""))
    if cache != "ok":
        notes.append(f"the cache directory is {cache}")
    return "; ".join(notes)
