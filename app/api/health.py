"""/healthz and /readyz, for load balancers and orchestrators."""

from typing import Any

from app.api.arguments import Blueprint
from app.api.parts import parts
from app.api.schemas import AnswerSchema
from app.errors import StoreError, StoreUnreachable

_PROBE_KEY = "readyz/no-such-image.png"

blueprint = Blueprint("health", __name__, description="For load balancers")


@blueprint.route("/healthz", methods=["GET"])
@blueprint.response(200, AnswerSchema)
def alive() -> dict[str, Any]:
    """The process answers."""
    return {"success": True, "message": "alive"}


@blueprint.route("/readyz", methods=["GET"])
@blueprint.response(200, AnswerSchema)
def ready() -> dict[str, Any]:
    """The store answers and lets us read; a cache that can't be written is told, but fails no request."""
    try:
        parts().store.exists(_PROBE_KEY)
    except StoreError:
        raise
    except Exception as exc:
        raise StoreUnreachable(detail=f"readiness: {exc}") from exc
    note = (
        ""
        if parts().cache.is_writable()
        else "; the cache directory can't be written, images come from the store"
    )
    return {"success": True, "message": f"ready{note}"}
