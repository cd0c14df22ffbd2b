"""OpenAI's shapes of requests and answers, as far as this server has something to say of them.

Errors as OpenAI's API tells them: what its clients make their error classes of, below /v1.

https://developers.openai.com/api/docs/guides/error-codes
"""

from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, pre_load, validate

from app.api.schemas import MAX_PROMPT, MOST_SEED, NOT_BLANK, SIZE, is_size, is_unicode, not_blank
from app.services.drawing import PromptRequest

OPENAI_PATH = "/v1/"

_STATUSES = {"key_refused": 401, "prompt_refused": 400}
"""Where OpenAI's status is another than ours."""

_CODES = {
    "bad_request": "invalid_value",
    "key_refused": "invalid_api_key",
    "key_required": "invalid_api_key",
    "prompt_refused": "moderation_blocked",
    "generator_busy": "rate_limit_exceeded",
    "rate_limited": "rate_limit_exceeded",
}

_NOT_PAID_FOR = "busy"
"""The one 5xx that surely came before the model was asked."""


def openai_status(status: int, code: str) -> int:
    """The status that OpenAI answers in this case."""
    return _STATUSES.get(code, status)


def openai_error(status: int, code: str, message: str, param: str | None) -> dict[str, Any]:
    """The body for an error of ours."""
    return {
        "error": {
            "message": message,
            "type": _type(status, code),
            "param": param,
            "code": _CODES.get(code, code),
        }
    }


def openai_headers(status: int, code: str) -> dict[str, str]:
    """What the official clients obey besides: not to try again by themselves where the model may be paid."""
    return {"X-Should-Retry": "false"} if status >= 500 and code != _NOT_PAID_FOR else {}


def _type(status: int, code: str) -> str:
    if code == "prompt_refused":
        return "image_generation_user_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


MOST_IMAGES = 4
"""Images of one request: each takes a slot for a while, or waits for one."""

_FORMATS = ("png", "jpeg", "webp")
_ANY_SIZE = "auto"


def _known_size(text: str) -> None:
    if text != _ANY_SIZE:
        is_size(text)


def _not_streamed(wanted: Any) -> None:
    """Take false alone, not what Python or marshmallow counts as false: 0, "off"."""
    if wanted is not False:
        raise ValidationError("Streaming is not supported. Send false, or nothing.")


def _ignored() -> fields.Raw:
    return fields.Raw(load_only=True, metadata={"description": "Accepted and not used."})


class ImagesRequestSchema(Schema):
    """Body of a request for images; a field that is null counts as not sent."""

    error_messages = {"type": "Send a JSON object.", "unknown": "Unknown parameter."}  # noqa: RUF012 (marshmallow declares it so)

    prompt = fields.String(
        required=True,
        validate=[validate.Length(max=MAX_PROMPT), not_blank, is_unicode],
        metadata={
            "description": "What to draw.",
            "example": "A beautiful sunset over mountains",
            "pattern": NOT_BLANK,
        },
    )
    model = fields.String(metadata={"description": "The model that GET /v1/models tells, or none."})
    n = fields.Integer(strict=True, load_default=1, validate=validate.Range(1, MOST_IMAGES))
    size = fields.String(
        load_default=_ANY_SIZE,
        validate=_known_size,
        metadata={
            "description": "Width x height, or auto: 1024x1024.",
            "pattern": f"^(?:{_ANY_SIZE}|{SIZE})$",
        },
    )
    output_format = fields.String(load_default="png", validate=validate.OneOf(_FORMATS))
    response_format = fields.String(
        validate=validate.OneOf(("url", "b64_json")), metadata={"description": "Without it: both."}
    )
    seed = fields.Integer(
        strict=True,
        validate=validate.Range(0, MOST_SEED),
        metadata={"description": "Not one of OpenAI's: the first image's; the others' are counted up."},
    )
    stream = fields.Raw(validate=_not_streamed, metadata={"type": "boolean", "enum": [False, None]})
    background = _ignored()
    complexity = _ignored()
    moderation = _ignored()
    output_compression = _ignored()
    partial_images = _ignored()
    quality = _ignored()
    safety_identifier = _ignored()
    style = _ignored()
    user = _ignored()

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Let the document say which fields may be null."""
        field_obj.allow_none = not field_obj.required

    @pre_load
    def _without_nulls(self, values: Any, **kwargs: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}

    @post_load
    def _ordered(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """The order, and how to answer."""
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
    """One image."""

    url = fields.String(metadata={"description": "Durable: it does not expire."})
    b64_json = fields.String(metadata={"description": "The image file's bytes."})


class ImagesResponseSchema(Schema):
    """The images drawn."""

    created = fields.Integer(required=True, metadata={"description": "Seconds since the epoch."})
    data = fields.List(fields.Nested(ImageDataSchema), required=True)
    output_format = fields.String(required=True)
    size = fields.String(required=True, metadata={"description": "The true size of the first image."})


class ModelSchema(Schema):
    """A model."""

    id = fields.String(required=True)
    object = fields.String(required=True)
    created = fields.Integer(required=True)
    owned_by = fields.String(required=True)


class ModelListSchema(Schema):
    """The models there are."""

    object = fields.String(required=True)
    data = fields.List(fields.Nested(ModelSchema), required=True)


class OpenAIErrorDetailSchema(Schema):
    """What went wrong."""

    message = fields.String(required=True)
    type = fields.String(required=True)
    param = fields.String(required=True, allow_none=True)
    code = fields.String(required=True, allow_none=True)


class OpenAIErrorSchema(Schema):
    """What every error below /v1 carries."""

    error = fields.Nested(OpenAIErrorDetailSchema, required=True)
