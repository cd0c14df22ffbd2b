"""OpenAI's shapes of requests and answers, as far as this server has something to say of them."""

from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, pre_load, validate

from app.api.schemas import MAX_PROMPT, MOST_SEED, NOT_BLANK, SIZE, is_size, is_unicode, not_blank
from app.generation import Order

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
        order = Order(
            values["prompt"],
            width,
            height,
            values["output_format"],
            seed=values.get("seed"),
            count=values["n"],
        )
        wanted = values.get("response_format")
        return {
            "order": order,
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
