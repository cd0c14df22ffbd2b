"""The marshmallow schemas of requests and responses. The page at `/docs` is generated from them."""

import re
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.api.openapi import FOLDER, NAME
from app.core.objects import FORMATS

MAX_PROMPT = 10_000
"""Maximum length of a prompt in characters. No current image model accepts more."""

MAX_SEED = 2**32 - 1

MAX_DETAILS = 100
"""Maximum number of images in a page with details. The details of each image cost a request to the store."""

_SIDE = "(?:6[4-9]|[7-9][0-9]|[1-9][0-9]{2}|1[0-9]{3}|20[0-3][0-9]|204[0-8])"
SIZE = f"{_SIDE}x{_SIDE}"
"""A pattern for two numbers from 64 to 2048 that are joined by `x`."""

NOT_BLANK = r"[^\x00-\x20]"


def _doc(text: str, **more: Any) -> dict[str, Any]:
    return {"description": text, **more}


_PRINTABLE = validate.Regexp(r"[^\x00-\x1f\x7f]*\Z", error="Must not contain control characters.")
"""Rejects control characters, which can't be used in URLs, and which S3 can't represent in XML responses."""

_NO_NUL = validate.Regexp(r"[^\0]*\Z", error="Must not contain the character NUL.")


class ResponseSchema(Schema):
    """The fields that every response has."""

    success = fields.Boolean(required=True)
    message = fields.String(required=True, metadata=_doc("A human-readable message."))


class ErrorSchema(ResponseSchema):
    """An error."""

    code = fields.String(required=True, metadata=_doc("A machine-readable reason in snake_case."))


class ReadinessSchema(ResponseSchema):
    """Says whether the server is ready, and gives the states of the store and the cache."""

    store = fields.String(required=True, metadata=_doc("ok, refused, unreachable or failing."))
    cache = fields.String(required=True, metadata=_doc("ok, unwritable or unreadable."))
    code = fields.String(metadata=_doc("If not ready, a machine-readable reason in snake_case."))


class ObjectSchema(Schema):
    """The file of an image."""

    key = fields.String(required=True)
    image_url = fields.String(required=True, metadata=_doc("The URL to use in <img src>."))
    content_type = fields.String(required=True)
    bytes = fields.Integer(required=True)


class PictureSchema(Schema):
    """The facts about the picture in an image file, and the URLs of variants."""

    width = fields.Integer(required=True, allow_none=True, metadata=_doc("Width in pixels."))
    height = fields.Integer(required=True, allow_none=True, metadata=_doc("Height in pixels."))
    frames = fields.Integer(
        required=True, allow_none=True, metadata=_doc("More than 1 if the image is animated.")
    )
    has_alpha = fields.Boolean(
        required=True, allow_none=True, metadata=_doc("Whether the image can have transparent pixels.")
    )
    thumbhash = fields.String(
        required=True,
        allow_none=True,
        metadata=_doc("A placeholder of about 25 bytes in Base64 (https://evanw.github.io/thumbhash/)."),
    )
    variants = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata=_doc(
            "URLs of smaller images: the URL of each preset by its name, and the value of the attribute "
            "srcset. Empty if there are no variants of this image."
        ),
    )


class ImageInfoSchema(PictureSchema, ObjectSchema, ResponseSchema):
    """The facts about a stored image."""

    last_modified = fields.DateTime(required=True)


class ImageSchema(PictureSchema, ObjectSchema, ResponseSchema):
    """A stored image."""

    width = fields.Integer(required=True, metadata=_doc("Width in pixels."))
    height = fields.Integer(required=True, metadata=_doc("Height in pixels."))
    frames = fields.Integer(required=True, metadata=_doc("More than 1 if the image is animated."))


class GeneratedImageSchema(ImageSchema):
    """A generated image."""

    model = fields.String(required=True, metadata=_doc("The model that generated it."))
    seed = fields.Integer(
        required=True,
        allow_none=True,
        metadata=_doc(
            "The same prompt, seed and size result in the same image. null if the model has no seeds."
        ),
    )


class AskedSchema(Schema):
    """The prompt that an image was generated from."""

    prompt = fields.String(required=True, metadata=_doc("A long prompt is truncated and ends in '…'."))
    negative_prompt = fields.String(required=True)
    model = fields.String(required=True)
    seed = fields.Integer(required=True, allow_none=True)
    size = fields.String(required=True, metadata=_doc("The requested width x height."))
    time = fields.DateTime(required=True)


class ListedImageSchema(PictureSchema, ObjectSchema):
    """An entry of a listing. Without details, the facts about the picture are null."""

    last_modified = fields.DateTime(required=True)
    asked = fields.Nested(
        AskedSchema,
        allow_none=True,
        metadata=_doc("Only with details: the prompt that the image was generated from, or null if unknown."),
    )
    original_name = fields.String(
        allow_none=True,
        metadata=_doc("Only with details: the name of the upload, if it differs from the name in the key."),
    )


class ImagePageSchema(ResponseSchema):
    """A page of a listing."""

    images = fields.List(fields.Nested(ListedImageSchema), required=True)
    next_cursor = fields.String(
        required=True,
        allow_none=True,
        metadata=_doc("The cursor of the next page, or null on the last page."),
    )
    unsafe_keys = fields.Integer(
        required=True,
        metadata=_doc(
            "The number of images of this page that are not listed, because their keys can't be used in a "
            "URL. Such a key has an empty or dot segment, a backslash or a control character."
        ),
    )


class CacheSchema(ResponseSchema):
    """The size of the cache, and how many requests were answered in which way, for all workers together."""

    entries = fields.Integer(required=True, metadata=_doc("Number of images in the cache."))
    bytes = fields.Integer(required=True, metadata=_doc("Bytes that the images use on disk."))
    max_bytes = fields.Integer(required=True, metadata=_doc("The limit, CACHE_MAX_BYTES."))
    hits = fields.Integer(required=True, metadata=_doc("Requests that this server answered from the cache."))
    misses = fields.Integer(
        required=True, metadata=_doc("Requests for which the image was fetched from the store.")
    )
    collapsed = fields.Integer(
        required=True, metadata=_doc("Requests that waited while another request fetched the image.")
    )
    revalidated = fields.Integer(
        required=True, metadata=_doc("Requests for which the store confirmed that the image was unchanged.")
    )
    stale = fields.Integer(
        required=True,
        metadata=_doc("Requests that were answered from the cache while the store was unavailable."),
    )
    bypass = fields.Integer(
        required=True,
        metadata=_doc("Requests that were answered from the store because the cache had no room."),
    )
    bytes_served = fields.Integer(
        required=True, metadata=_doc("Bytes that were served without fetching them from the store.")
    )
    requests_saved = fields.Integer(required=True, metadata=_doc("hits + stale + collapsed."))
    saved_usd = fields.Float(required=True, metadata=_doc("The price of requests_saved, in US dollars."))
    get_usd_per_million = fields.Float(
        required=True,
        metadata=_doc("The price of a million GET requests to S3 Standard in us-east-1, in US dollars."),
    )


class DeletedSchema(ResponseSchema):
    """The deleted image."""

    key = fields.String(required=True)


class UploadOptionsSchema(Schema):
    """The options of an upload, which are query parameters or form fields."""

    error_messages = {"unknown": "Unknown field."}  # noqa: RUF012 (marshmallow declares it so)

    name = fields.String(
        load_default=None,
        metadata=_doc(
            "The name to store the image under, instead of a hash of its bytes. Characters that are not "
            "allowed in keys are replaced: 'Müller 1.jpg' becomes 'Muller-1.jpg', and the original name is "
            "kept as metadata.",
            pattern=NAME,
        ),
    )
    folder = fields.String(
        load_default=None, metadata=_doc("The folder of the key, such as users/123.", pattern=FOLDER)
    )
    overwrite = fields.Boolean(
        load_default=True,
        metadata=_doc("If false, the upload fails with 409 if an image with this name exists."),
    )


class ListOptionsSchema(Schema):
    """The query parameters of a listing."""

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
            "Include prompts, original names and the facts about each picture. A page then has at most "
            f"{MAX_DETAILS} images."
        ),
    )

    @post_load
    def _limit_details(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Reduce the page size for requests with details, which cost one store request per image."""
        maximum = MAX_DETAILS if values["details"] else values["limit"]
        return {**values, "limit": min(values["limit"], maximum)}


def not_blank(text: str) -> None:
    """Raise `ValidationError` if the text is empty or only white space."""
    if not re.search(NOT_BLANK, text):
        raise ValidationError("Must not be empty.")


def is_size(text: str) -> None:
    """Raise `ValidationError` if the text is not a size that generators support."""
    if not re.fullmatch(SIZE, text):
        raise ValidationError("Must be like 1024x1024, each side 64 to 2048 pixels.")


def is_unicode(text: str) -> None:
    """Raise `ValidationError` for unpaired surrogates, which JSON allows but UTF-8 can't encode."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ValidationError("Is not valid Unicode.") from exc


class IdempotencySchema(Schema):
    """The header of a request that must not be executed twice.

    See https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header.
    """

    idempotency_key = fields.String(
        data_key="Idempotency-Key",
        load_default=None,
        validate=validate.Regexp(
            r'^(?!""$)[!-~]{1,255}$', error="Must be 1 to 255 visible ASCII characters, for example a UUID."
        ),
        metadata=_doc("For a day, a repeated request with the same key gets the same response."),
    )

    @post_load
    def _unquoted(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Remove the quotes around the key. The draft requires them (it is a string of RFC 9651, 3.3.3), but
        most clients omit them.
        """
        key = values["idempotency_key"]
        if key and len(key) > 2 and key[0] == key[-1] == '"':
            values["idempotency_key"] = re.sub(r"\\(.)", r"\1", key[1:-1])
        return values


class PromptSchema(Schema):
    """The body of a request to generate an image."""

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
    folder = fields.String(load_default=None, metadata=_doc("The folder of the key.", pattern=FOLDER))
    seed = fields.Integer(strict=True, load_default=None, validate=validate.Range(0, MAX_SEED))
    negative_prompt = fields.String(load_default="", validate=[validate.Length(max=MAX_PROMPT), is_unicode])

    @post_load
    def _to_arguments(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Return the arguments of `PromptRequest`."""
        width, height = map(int, values.pop("size").split("x"))
        image_format = values.pop("format")
        return {**values, "width": width, "height": height, "image_format": image_format}
