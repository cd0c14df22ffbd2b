"""/v1: the calls of OpenAI's API that draw images, over the same service, for clients that speak it."""

import base64
from typing import Any

from flask import request

from app.api.arguments import Blueprint, query_names
from app.api.images import absolute
from app.api.openai_schemas import (
    ImagesRequestSchema,
    ImagesResponseSchema,
    ModelListSchema,
    ModelSchema,
    OpenAIErrorSchema,
)
from app.api.parts import KEYED, idempotency_key, key_required, parts
from app.api.schemas import IdempotencySchema
from app.core.errors import ModelNotFound
from app.services.drawing import StoredGeneration

_MAX_BODY = 128 * 1024
_ERROR = {"description": "Any error", "content": {"application/json": {"schema": OpenAIErrorSchema}}}
_ERRORS = {"default": _ERROR, "400": _ERROR}

_AZURE_VERSION = "api-version"
"""The query parameter that clients made for Azure add to each call. Accepted, and ignored."""

blueprint = Blueprint("openai", __name__, url_prefix="/v1", description="What OpenAI's clients call")


@blueprint.before_request
def _limit_body() -> None:
    request.max_content_length = _MAX_BODY


@blueprint.route("/images/generations", methods=["POST"])
@query_names(_AZURE_VERSION)
@key_required("generate", counted=False)
@blueprint.doc(security=KEYED, responses=_ERRORS)
@blueprint.arguments(ImagesRequestSchema)
@blueprint.arguments(IdempotencySchema, location="headers")
@blueprint.response(200, ImagesResponseSchema)
def generate(wanted: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """Draw images, store them and answer with their URLs or bytes."""
    _check_model(wanted["model"])
    parts().limits.check("generate", wanted["order"].count)
    drawn = parts().generation.generate(wanted["order"], idempotency_key(header))
    first = drawn[0].image
    return {
        "created": int(drawn[0].time.timestamp()),
        "data": [_data(generation, wanted["fields"]) for generation in drawn],
        "output_format": first.content_type.removeprefix("image/"),
        "size": f"{first.width}x{first.height}",
    }


@blueprint.route("/models", methods=["GET"])
@query_names(_AZURE_VERSION)
@key_required("generate", counted=False)
@blueprint.doc(security=KEYED, responses=_ERRORS)
@blueprint.response(200, ModelListSchema)
def list_models() -> dict[str, Any]:
    """The one model that this server draws with."""
    return {"object": "list", "data": [_model()]}


@blueprint.route("/models/<path:model>", methods=["GET"])
@query_names(_AZURE_VERSION)
@key_required("generate", counted=False)
@blueprint.doc(security=KEYED, responses=_ERRORS)
@blueprint.response(200, ModelSchema)
def show_model(model: str) -> dict[str, Any]:
    """That model by its id."""
    _check_model(model)
    return _model()


def _check_model(model: str | None) -> None:
    if model is not None and model != parts().generation.model_name():
        raise ModelNotFound


def _model() -> dict[str, Any]:
    """When a model was made is known to its vendor alone: hence 0."""
    name = parts().generation.model_name()
    return {"id": name, "object": "model", "created": 0, "owned_by": "s3-image-server"}


def _data(generation: StoredGeneration, wanted: set[str]) -> dict[str, str]:
    data = {}
    if "url" in wanted:
        data["url"] = absolute(generation.image.url)
    if "b64_json" in wanted:
        data["b64_json"] = base64.b64encode(_bytes(generation.image.key)).decode()
    return data


def _bytes(key: str) -> bytes:
    body = parts().service.fetch(key).body
    try:
        return body.read()
    finally:
        body.close()
