"""/api/generate-image: from a prompt to a stored image."""

from typing import Any

from flask import request

from app.api.arguments import Blueprint
from app.api.images import image_answer
from app.api.parts import KEYED, key_required, parts
from app.api.schemas import GeneratedImageSchema, PromptSchema

_MAX_BODY = 128 * 1024
"""Bytes; two prompts of the longest, escaped."""

blueprint = Blueprint("generate", __name__, url_prefix="/api/generate-image", description="Draw a prompt")


@blueprint.before_request
def _limit_body() -> None:
    request.max_content_length = _MAX_BODY


@blueprint.route("", methods=["POST"])
@key_required("generate")
@blueprint.doc(security=KEYED)
@blueprint.arguments(PromptSchema)
@blueprint.response(200, GeneratedImageSchema)
def generate(options: dict[str, Any]) -> dict[str, Any]:
    """Have an image drawn and store it."""
    drawn = parts().service.generate(**options)
    answer = image_answer(drawn.image, "Image generated and uploaded successfully")
    return {**answer, "model": drawn.model, "seed": drawn.seed}
