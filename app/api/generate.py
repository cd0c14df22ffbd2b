"""/api/generate-image: from a prompt to a stored image."""

from typing import Any

from flask import request

from app.api.arguments import Blueprint
from app.api.images import image_answer
from app.api.parts import KEYED, idempotency_key, key_required, parts
from app.api.schemas import GeneratedImageSchema, IdempotencySchema, PromptSchema
from app.services.drawing import PromptRequest

_MAX_BODY = 128 * 1024
"""Bytes; two prompts of the longest, escaped."""

_DRAWN = "Image generated and uploaded successfully"
_SEEN_BEFORE = "Image was generated already"

blueprint = Blueprint("generate", __name__, url_prefix="/api/generate-image", description="Draw a prompt")


@blueprint.before_request
def _limit_body() -> None:
    request.max_content_length = _MAX_BODY


@blueprint.route("", methods=["POST"])
@key_required("generate")
@blueprint.doc(security=KEYED)
@blueprint.arguments(PromptSchema)
@blueprint.arguments(IdempotencySchema, location="headers")
@blueprint.response(200, GeneratedImageSchema)
def generate(options: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """Have an image drawn and store it."""
    (drawn,) = parts().generation.generate(PromptRequest(**options), idempotency_key(header))
    answer = image_answer(drawn.image, _DRAWN if drawn.image.created else _SEEN_BEFORE)
    return {**answer, "model": drawn.model, "seed": drawn.seed}
