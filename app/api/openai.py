"""`/v1`: the calls of OpenAI's images API, for clients that were written for that API."""

import base64
from typing import Any

from flask import request

from app.api.arguments import Blueprint, query_names
from app.api.auth import KEY_SECURITY, idempotency_key, key_required
from app.api.context import absolute_url, client_name, components
from app.api.images import picture_fields
from app.api.openai_schemas import (
    ImagesRequestSchema,
    ImagesResponseSchema,
    ModelListSchema,
    ModelSchema,
    OpenAIErrorSchema,
)
from app.api.schemas import IdempotencySchema
from app.core.errors import ModelNotFound
from app.services.drawing import StoredGeneration

_MAX_BODY_BYTES = 128 * 1024
_ERROR = {"description": "Any error", "content": {"application/json": {"schema": OpenAIErrorSchema}}}
_ERRORS = {"default": _ERROR, "400": _ERROR}

_AZURE_VERSION = "api-version"
"""A query parameter that Azure clients add to each call. It is ignored."""

blueprint = Blueprint("openai", __name__, url_prefix="/v1", description="OpenAI-compatible calls")


@blueprint.before_request
def _limit_body() -> None:
    request.max_content_length = _MAX_BODY_BYTES


@blueprint.route("/images/generations", methods=["POST"])
@query_names(_AZURE_VERSION)
@key_required("generate", counted=False)
@blueprint.doc(security=KEY_SECURITY, responses=_ERRORS)
@blueprint.arguments(ImagesRequestSchema)
@blueprint.arguments(IdempotencySchema, location="headers")
@blueprint.response(200, ImagesResponseSchema)
def generate(options: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """Generate images, store them and return their URLs or bytes."""
    _check_model(options["model"])
    components().rate_limits.check("generate", client_name(), options["request"].count)
    drawn = components().generation.generate(options["request"], idempotency_key(header))
    first = drawn[0].image
    return {
        "created": int(drawn[0].time.timestamp()),
        "data": [_data(generation, options["fields"]) for generation in drawn],
        "output_format": first.content_type.removeprefix("image/"),
        "size": f"{first.width}x{first.height}",
    }


@blueprint.route("/models", methods=["GET"])
@query_names(_AZURE_VERSION)
@key_required("generate", counted=False)
@blueprint.doc(security=KEY_SECURITY, responses=_ERRORS)
@blueprint.response(200, ModelListSchema)
def list_models() -> dict[str, Any]:
    """List the model that this server uses."""
    return {"object": "list", "data": [_model()]}


@blueprint.route("/models/<path:model>", methods=["GET"])
@query_names(_AZURE_VERSION)
@key_required("generate", counted=False)
@blueprint.doc(security=KEY_SECURITY, responses=_ERRORS)
@blueprint.response(200, ModelSchema)
def show_model(model: str) -> dict[str, Any]:
    """Describe the model that this server uses."""
    _check_model(model)
    return _model()


def _check_model(model: str | None) -> None:
    if model is not None and model != components().generation.model_name():
        raise ModelNotFound


def _model() -> dict[str, Any]:
    name = components().generation.model_name()
    # `created` is 0, since only the vendor knows when the model was created.
    return {"id": name, "object": "model", "created": 0, "owned_by": "s3-image-server"}


def _data(generation: StoredGeneration, wanted: set[str]) -> dict[str, Any]:
    image = generation.image
    picture = picture_fields(image.key, image.info)
    data = {"thumbhash": picture["thumbhash"], "variants": picture["variants"]}
    data |= {"width": image.width, "height": image.height}
    if "url" in wanted:
        data["url"] = absolute_url(image.url)
    if "b64_json" in wanted:
        data["b64_json"] = base64.b64encode(_bytes(image.key)).decode()
    return data


def _bytes(key: str) -> bytes:
    body = components().images.fetch(key).body
    try:
        return body.read()
    finally:
        body.close()
