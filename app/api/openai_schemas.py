"""The requests, responses and errors of OpenAI's images API that this server supports.

OpenAI's clients choose the exception class by the status and the code of an error. See
https://developers.openai.com/api/docs/guides/error-codes.
"""

from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, pre_load, validate

from app.api.schemas import MAX_PROMPT, MAX_SEED, NOT_BLANK, SIZE, is_size, is_unicode, not_blank
from app.services.drawing import PromptRequest

OPENAI_PATH = "/v1/"

_STATUSES = {"key_refused": 401, "prompt_refused": 400}
"""Maps error codes to the statuses that OpenAI's API uses for these errors, where our own API uses a
different status."""

_CODES = {
    "bad_request": "invalid_value",
    "key_refused": "invalid_api_key",
    "key_required": "invalid_api_key",
    "prompt_refused": "moderation_blocked",
    "generator_busy": "rate_limit_exceeded",
    "rate_limited": "rate_limit_exceeded",
}

_RETRYABLE = "busy"
"""The only error code with a 5xx status after which clients should retry, since it means that the model was
not called. Each call of the model may cost money."""


def openai_status(status: int, code: str) -> int:
    """Return the status that OpenAI's API uses for an error."""
    return _STATUSES.get(code, status)


def openai_error(status: int, code: str, message: str, param: str | None) -> dict[str, Any]:
    """Return the body of an error. `param` is the name of the invalid field, or None."""
    return {
        "error": {
            "message": message,
            "type": _type(status, code),
            "param": param,
            "code": _CODES.get(code, code),
        }
    }


def openai_headers(status: int, code: str) -> dict[str, str]:
    """Return headers that keep OpenAI's clients from retrying a call that may have cost money."""
    return {"X-Should-Retry": "false"} if status >= 500 and code != _RETRYABLE else {}


def _type(status: int, code: str) -> str:
    if code == "prompt_refused":
        return "image_generation_user_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


MAX_IMAGES = 4
"""Maximum number of images per request. Each image needs a generation slot."""

_FORMATS = ("png", "jpeg", "webp")
_ANY_SIZE = "auto"


def _check_size(text: str) -> None:
    if text != _ANY_SIZE:
        is_size(text)


def _reject_streaming(wanted: Any) -> None:
    """Raise `ValidationError` unless the value is the boolean false. Even 0 and "off" are rejected."""
    if wanted is not False:
        raise ValidationError("Streaming is not supported. Send false or omit it.")


def _ignored_field() -> fields.Raw:
    return fields.Raw(load_only=True, metadata={"description": "Accepted and ignored."})


class ImagesRequestSchema(Schema):
    """The body of a request for images. A field that is null counts as omitted."""

    error_messages = {"type": "Send a JSON object.", "unknown": "Unknown parameter."}  # noqa: RUF012 (marshmallow declares it so)

    prompt = fields.String(
        required=True,
        validate=[validate.Length(max=MAX_PROMPT), not_blank, is_unicode],
        metadata={
            "description": "Description of the image.",
            "example": "A beautiful sunset over mountains",
            "pattern": NOT_BLANK,
        },
    )
    model = fields.String(metadata={"description": "The model that GET /v1/models lists. Can be omitted."})
    n = fields.Integer(strict=True, load_default=1, validate=validate.Range(1, MAX_IMAGES))
    size = fields.String(
        load_default=_ANY_SIZE,
        validate=_check_size,
        metadata={
            "description": "Width x height, or auto for 1024x1024.",
            "pattern": f"^(?:{_ANY_SIZE}|{SIZE})$",
        },
    )
    output_format = fields.String(load_default="png", validate=validate.OneOf(_FORMATS))
    response_format = fields.String(
        validate=validate.OneOf(("url", "b64_json")),
        metadata={"description": "If omitted, the response has both."},
    )
    seed = fields.Integer(
        strict=True,
        validate=validate.Range(0, MAX_SEED),
        metadata={
            "description": "Not in OpenAI's API. The seed of the first image; it is incremented for each "
            "further image."
        },
    )
    stream = fields.Raw(validate=_reject_streaming, metadata={"type": "boolean", "enum": [False, None]})
    background = _ignored_field()
    complexity = _ignored_field()
    moderation = _ignored_field()
    output_compression = _ignored_field()
    partial_images = _ignored_field()
    quality = _ignored_field()
    safety_identifier = _ignored_field()
    style = _ignored_field()
    user = _ignored_field()

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Allow null in optional fields, so that the OpenAPI document shows it."""
        field_obj.allow_none = not field_obj.required

    @pre_load
    def _without_nulls(self, values: Any, **kwargs: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}

    @post_load
    def _to_request(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return a dict: the request, the model, and which fields to return for each image."""
        size = "1024x1024" if values["size"] == _ANY_SIZE else values["size"]
        width, height = map(int, size.split("x"))
        request = PromptRequest(
            values["prompt"],
            width,
            height,
            values["output_format"],
            seed=values.get("seed"),
            count=values["n"],
        )
        wanted = values.get("response_format")
        return {
            "request": request,
            "model": values.get("model"),
            "fields": {wanted} if wanted else {"url", "b64_json"},
        }


class ImageDataSchema(Schema):
    """An image in a response. OpenAI's API has only the first two fields."""

    url = fields.String(
        metadata={"description": "The URL of the image. It expires only with IMAGE_URLS=presigned."}
    )
    b64_json = fields.String(metadata={"description": "The image file in Base64."})
    width = fields.Integer(required=True)
    height = fields.Integer(required=True)
    thumbhash = fields.String(required=True, allow_none=True)
    variants = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


class ImagesResponseSchema(Schema):
    """The generated images."""

    created = fields.Integer(required=True, metadata={"description": "In seconds since the epoch."})
    data = fields.List(fields.Nested(ImageDataSchema), required=True)
    output_format = fields.String(required=True)
    size = fields.String(required=True, metadata={"description": "The actual size of the first image."})


class ModelSchema(Schema):
    """An image model."""

    id = fields.String(required=True)
    object = fields.String(required=True)
    created = fields.Integer(required=True)
    owned_by = fields.String(required=True)


class ModelListSchema(Schema):
    """The image models that are available."""

    object = fields.String(required=True)
    data = fields.List(fields.Nested(ModelSchema), required=True)


class OpenAIErrorDetailSchema(Schema):
    """The details of an error."""

    message = fields.String(required=True)
    type = fields.String(required=True)
    param = fields.String(required=True, allow_none=True)
    code = fields.String(required=True, allow_none=True)


class OpenAIErrorSchema(Schema):
    """The body of every error below `/v1`."""

    error = fields.Nested(OpenAIErrorDetailSchema, required=True)
