"""The marshmallow schemas of requests and answers, from which `/docs` is generated."""

import re
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.api.openapi import FOLDER, NAME
from app.core.objects import FORMATS

MAX_PROMPT = 10_000
"""Characters; the maximum of current image models."""

MAX_SEED = 2**32 - 1

MAX_DETAILS = 100
"""Images per page with details, each of which costs a request to the store."""

_SIDE = "(?:6[4-9]|[7-9][0-9]|[1-9][0-9]{2}|1[0-9]{3}|20[0-3][0-9]|204[0-8])"
SIZE = f"{_SIDE}x{_SIDE}"
"""A pattern of two numbers from 64 to 2048."""

NOT_BLANK = r"[^\x00-\x20]"


def _doc(text: str, **more: Any) -> dict[str, Any]:
    return {"description": text, **more}


_PRINTABLE = validate.Regexp(r"[^\x00-\x1f\x7f]*\Z", error="Must not contain control characters.")
"""Keys usable in URLs have none, and XML answers of S3 can't represent them."""

_NO_NUL = validate.Regexp(r"[^\0]*\Z", error="Must not contain the character NUL.")


class AnswerSchema(Schema):
    """The fields of every answer."""

    success = fields.Boolean(required=True)
    message = fields.String(required=True, metadata=_doc("A sentence for people."))


class ErrorSchema(AnswerSchema):
    """An error."""

    code = fields.String(required=True, metadata=_doc("The reason, in snake_case, for programs."))


class ReadinessSchema(AnswerSchema):
    """Readiness, and the states of store and cache."""

    store = fields.String(required=True, metadata=_doc("ok, refused, unreachable or failing."))
    cache = fields.String(required=True, metadata=_doc("ok, unwritable or unreadable."))
    code = fields.String(metadata=_doc("The reason if it is not ready, in snake_case, for programs."))


class ImageSchema(AnswerSchema):
    """A stored image."""

    image_url = fields.String(required=True, metadata=_doc("For <img src>."))
    key = fields.String(required=True)
    content_type = fields.String(required=True)
    width = fields.Integer(required=True, metadata=_doc("Pixels."))
    height = fields.Integer(required=True, metadata=_doc("Pixels."))
    frames = fields.Integer(required=True, metadata=_doc("More than 1 for an animation."))
    bytes = fields.Integer(required=True)


class GeneratedImageSchema(ImageSchema):
    """A generated image."""

    model = fields.String(required=True, metadata=_doc("The model that generated it."))
    seed = fields.Integer(
        required=True,
        allow_none=True,
        metadata=_doc("The same prompt, seed and size give the same image; null if the model has no seeds."),
    )


class AskedSchema(Schema):
    """The prompt that an image was generated from."""

    prompt = fields.String(required=True, metadata=_doc("Long ones are truncated and end in '…'."))
    negative_prompt = fields.String(required=True)
    model = fields.String(required=True)
    seed = fields.Integer(required=True, allow_none=True)
    size = fields.String(required=True, metadata=_doc("Width x height, as requested."))
    time = fields.DateTime(required=True)


class ListedImageSchema(Schema):
    """A line of a listing."""

    key = fields.String(required=True)
    image_url = fields.String(required=True)
    content_type = fields.String(required=True)
    bytes = fields.Integer(required=True)
    last_modified = fields.DateTime(required=True)
    asked = fields.Nested(
        AskedSchema,
        allow_none=True,
        metadata=_doc("Only with details: what the image was generated from; null if unknown."),
    )
    original_name = fields.String(
        allow_none=True,
        metadata=_doc("Only with details: the name of the upload, if the key can't represent it."),
    )


class ImagePageSchema(AnswerSchema):
    """A page of a listing."""

    images = fields.List(fields.Nested(ListedImageSchema), required=True)
    next_cursor = fields.String(
        required=True,
        allow_none=True,
        metadata=_doc("The cursor of the next page; null at the end."),
    )
    unsafe_keys = fields.Integer(
        required=True,
        metadata=_doc(
            "Images of this page that are not listed because their keys can't be used in a URL: the key "
            "has an empty or dot segment, a backslash or a control character."
        ),
    )


class CacheSchema(AnswerSchema):
    """How full the cache is, and how requests were answered, for all workers together."""

    entries = fields.Integer(required=True, metadata=_doc("Images in the cache."))
    bytes = fields.Integer(required=True, metadata=_doc("Bytes that they use on disk."))
    max_bytes = fields.Integer(required=True, metadata=_doc("The limit, CACHE_MAX_BYTES."))
    hits = fields.Integer(required=True, metadata=_doc("Answered from the cache, by this server."))
    misses = fields.Integer(required=True, metadata=_doc("Fetched from the store."))
    collapsed = fields.Integer(required=True, metadata=_doc("Waited for the same miss of another request."))
    revalidated = fields.Integer(required=True, metadata=_doc("Unchanged according to the store."))
    stale = fields.Integer(required=True, metadata=_doc("From the cache while the store was unavailable."))
    bypass = fields.Integer(required=True, metadata=_doc("From the store because the cache had no room."))
    bytes_served = fields.Integer(required=True, metadata=_doc("Bytes served without the store."))
    requests_saved = fields.Integer(required=True, metadata=_doc("hits + stale + collapsed."))
    saved_usd = fields.Float(required=True, metadata=_doc("requests_saved at get_usd_per_million."))
    get_usd_per_million = fields.Float(
        required=True, metadata=_doc("S3 Standard's price of GET requests in us-east-1, in US dollars.")
    )


class DeletedSchema(AnswerSchema):
    """The deleted image."""

    key = fields.String(required=True)


class UploadOptionsSchema(Schema):
    """Query or form fields of an upload."""

    error_messages = {"unknown": "Unknown field."}  # noqa: RUF012 (marshmallow declares it so)

    name = fields.String(
        load_default=None,
        metadata=_doc(
            "Store under this name instead of a hash of the bytes. Characters that keys can't have are "
            "replaced: 'Müller 1.jpg' becomes 'Muller-1.jpg', and the name is kept as metadata.",
            pattern=NAME,
        ),
    )
    folder = fields.String(
        load_default=None, metadata=_doc("Folder of the key, such as users/123.", pattern=FOLDER)
    )
    overwrite = fields.Boolean(load_default=True, metadata=_doc("false: answer 409 if the name exists."))


class ListOptionsSchema(Schema):
    """Query of a listing."""

    prefix = fields.String(load_default="", validate=[validate.Length(max=1024), _PRINTABLE])
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))
    cursor = fields.String(
        load_default=None,
        validate=[validate.Length(max=3072), _NO_NUL],
        metadata=_doc("next_cursor of the previous page."),
    )
    details = fields.Boolean(
        load_default=False,
        metadata=_doc(
            f"Include what each image was generated from; a page then has at most {MAX_DETAILS} images."
        ),
    )

    @post_load
    def _limit_details(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Reduce the page: details cost one request to the store per image."""
        most = MAX_DETAILS if values["details"] else values["limit"]
        return {**values, "limit": min(values["limit"], most)}


def not_blank(text: str) -> None:
    """Raise `ValidationError` if the text has only white space."""
    if not re.search(NOT_BLANK, text):
        raise ValidationError("Must not be empty.")


def is_size(text: str) -> None:
    """Raise `ValidationError` if the text is not a size that generators support."""
    if not re.fullmatch(SIZE, text):
        raise ValidationError("Must be like 1024x1024, each side 64 to 2048 pixels.")


def is_unicode(text: str) -> None:
    """Raise `ValidationError` for half of a surrogate pair, which only JSON can represent."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ValidationError("Is not valid Unicode.") from exc


class IdempotencySchema(Schema):
    """Header of a request that must not be executed twice.

    See https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header.
    """

    idempotency_key = fields.String(
        data_key="Idempotency-Key",
        load_default=None,
        validate=validate.Regexp(
            r'^(?!""$)[!-~]{1,255}$', error="Must be 1 to 255 visible ASCII characters, for example a UUID."
        ),
        metadata=_doc("Repeating a request with the same key returns the same answer for a day."),
    )

    @post_load
    def _unquoted(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Treat the quoted key of the draft (RFC 9651, 3.3.3) and the bare one of most clients alike."""
        key = values["idempotency_key"]
        if key and len(key) > 2 and key[0] == key[-1] == '"':
            values["idempotency_key"] = re.sub(r"\\(.)", r"\1", key[1:-1])
        return values


class PromptSchema(Schema):
    """Body of a request to generate an image."""

    error_messages = {"type": "Send a JSON object.", "unknown": "Unknown field."}  # noqa: RUF012 (marshmallow declares it so)

    prompt = fields.String(
        required=True,
        validate=[validate.Length(max=MAX_PROMPT), not_blank, is_unicode],
        metadata=_doc(
            "Description of the image.", example="A beautiful sunset over mountains", pattern=NOT_BLANK
        ),
    )
    size = fields.String(
        load_default="1024x1024", validate=is_size, metadata=_doc("Width x height.", pattern=f"^{SIZE}$")
    )
    format = fields.String(load_default="png", validate=validate.OneOf(tuple(FORMATS)))
    folder = fields.String(load_default=None, metadata=_doc("Folder of the key.", pattern=FOLDER))
    seed = fields.Integer(strict=True, load_default=None, validate=validate.Range(0, MAX_SEED))
    negative_prompt = fields.String(load_default="", validate=[validate.Length(max=MAX_PROMPT), is_unicode])

    @post_load
    def _to_arguments(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the arguments of `PromptRequest`."""
        width, height = map(int, values.pop("size").split("x"))
        image_format = values.pop("format")
        return {**values, "width": width, "height": height, "image_format": image_format}
