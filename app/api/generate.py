"""`/api/generate-image`: generate an image from a prompt and store it."""

from typing import Any

from flask import request

from app.api.arguments import Blueprint
from app.api.auth import KEY_SECURITY, idempotency_key, key_required
from app.api.context import components
from app.api.images import image_fields
from app.api.schemas import GeneratedImageSchema, IdempotencySchema, PromptSchema
from app.services.drawing import PromptRequest

_MAX_BODY_BYTES = 128 * 1024
"""Maximum size of the JSON body. This is enough for a prompt and a negative prompt of the maximum length,
even if all characters are escaped."""

blueprint = Blueprint("generate", __name__, url_prefix="/api/generate-image", description="Generate an image")


@blueprint.before_request
def _limit_body() -> None:
    request.max_content_length = _MAX_BODY_BYTES


@blueprint.route("", methods=["POST"])
@key_required("generate")
@blueprint.doc(security=KEY_SECURITY)
@blueprint.arguments(PromptSchema)
@blueprint.arguments(IdempotencySchema, location="headers")
@blueprint.response(200, GeneratedImageSchema)
def generate(options: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """Generate an image from a prompt and store it."""
    (drawn,) = components().generation.generate(PromptRequest(**options), idempotency_key(header))
    fields = image_fields(drawn.image, "Image generated and uploaded successfully")
    return {**fields, "model": drawn.model, "seed": drawn.seed}
