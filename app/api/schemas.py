"""What goes in and out as JSON, form fields and query: marshmallow schemas, from which /docs is made."""

import re
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validate

from app.api.openapi import FOLDER, NAME
from app.core.objects import FORMATS

MAX_PROMPT = 10_000
"""Characters; what today's image models take at most."""

MOST_SEED = 2**32 - 1

MOST_DETAILS = 100
"""Images of a listing for which the store is asked one by one."""

_SIDE = "(?:6[4-9]|[7-9][0-9]|[1-9][0-9]{2}|1[0-9]{3}|20[0-3][0-9]|204[0-8])"
SIZE = f"{_SIDE}x{_SIDE}"
"""Two numbers from 64 to 2048."""

NOT_BLANK = r"[^\x00-\x20]"


def _about(text: str, **more: Any) -> dict[str, Any]:
    return {"description": text, **more}


_PRINTABLE = validate.Regexp(r"[^\x00-\x1f\x7f]*\Z", error="Must not hold control characters.")
"""No key that a URL can name has any, and S3 can't say them in XML."""

_NO_NUL = validate.Regexp(r"[^\0]*\Z", error="Must not hold the character NUL.")


class AnswerSchema(Schema):
    """What every answer carries."""

    success = fields.Boolean(required=True)
    message = fields.String(required=True, metadata=_about("A sentence for people."))


class ErrorSchema(AnswerSchema):
    """What every error carries besides."""

    code = fields.String(required=True, metadata=_about("The reason, in snake_case, for programs."))


class ReadinessSchema(AnswerSchema):
    """Store and cache, told apart."""

    store = fields.String(required=True, metadata=_about("ok, refused, unreachable or failing."))
    cache = fields.String(required=True, metadata=_about("ok, unwritable or unreadable."))
    code = fields.String(metadata=_about("Why it is not ready, in snake_case, for programs."))


class ImageSchema(AnswerSchema):
    """A stored image."""

    image_url = fields.String(required=True, metadata=_about("For <img src>."))
    key = fields.String(required=True)
    content_type = fields.String(required=True)
    width = fields.Integer(required=True, metadata=_about("Pixels."))
    height = fields.Integer(required=True, metadata=_about("Pixels."))
    frames = fields.Integer(required=True, metadata=_about("More than 1 for an animation."))
    bytes = fields.Integer(required=True)


class GeneratedImageSchema(ImageSchema):
    """A generated image."""

    model = fields.String(required=True, metadata=_about("What drew it."))
    seed = fields.Integer(
        required=True,
        allow_none=True,
        metadata=_about("The same prompt, seed and size draw it again; null where the model has no seeds."),
    )


class AskedSchema(Schema):
    """What a generator was asked."""

    prompt = fields.String(required=True, metadata=_about("A long one is cut, and ends in '…' then."))
    negative_prompt = fields.String(required=True)
    model = fields.String(required=True)
    seed = fields.Integer(required=True, allow_none=True)
    size = fields.String(required=True, metadata=_about("Width x height, as asked."))
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
        metadata=_about("With details alone: what the image was drawn from; null where that is not known."),
    )
    original_name = fields.String(
        allow_none=True,
        metadata=_about(
            "With details alone: the name that the image was uploaded under, if the key can't hold it."
        ),
    )


class ImagePageSchema(AnswerSchema):
    """A page of a listing."""

    images = fields.List(fields.Nested(ListedImageSchema), required=True)
    next_cursor = fields.String(
        required=True,
        allow_none=True,
        metadata=_about("Send it as cursor for the next page; null at the end."),
    )
    unsafe_keys = fields.Integer(
        required=True,
        metadata=_about(
            "Images of this page that are not listed, since a URL of their key may mean another one: the key "
            "has an empty or dot segment, a backslash or a control character."
        ),
    )


class CacheSchema(AnswerSchema):
    """How full the cache is, and what it has saved; counts are of all workers together."""

    entries = fields.Integer(required=True, metadata=_about("Images in the cache."))
    bytes = fields.Integer(required=True, metadata=_about("What they take on disk."))
    max_bytes = fields.Integer(required=True, metadata=_about("The bound, CACHE_MAX_BYTES."))
    hits = fields.Integer(required=True, metadata=_about("Answered from the cache; not by a front server."))
    misses = fields.Integer(required=True, metadata=_about("Brought from the store."))
    collapsed = fields.Integer(required=True, metadata=_about("Waited for another request's miss."))
    revalidated = fields.Integer(required=True, metadata=_about("The store said: not changed."))
    stale = fields.Integer(required=True, metadata=_about("From the cache, while the store was away."))
    bypass = fields.Integer(required=True, metadata=_about("From the store, since the cache had no room."))
    bytes_served = fields.Integer(required=True, metadata=_about("Bytes that the store was not asked for."))
    requests_saved = fields.Integer(required=True, metadata=_about("hits + stale + collapsed."))
    saved_usd = fields.Float(required=True, metadata=_about("requests_saved at get_usd_per_million."))
    get_usd_per_million = fields.Float(
        required=True, metadata=_about("S3 Standard's price of GET requests in us-east-1, in US dollars.")
    )


class DeletedSchema(AnswerSchema):
    """What was deleted."""

    key = fields.String(required=True)


class UploadOptionsSchema(Schema):
    """Query or form fields of an upload."""

    error_messages = {"unknown": "Unknown field."}  # noqa: RUF012 (marshmallow declares it so)

    name = fields.String(
        load_default=None,
        metadata=_about(
            "Store under this name, instead of one made from the bytes. Characters that keys don't have are "
            "replaced: 'Müller 1.jpg' is stored as 'Muller-1.jpg', and the name is kept with the image.",
            pattern=NAME,
        ),
    )
    folder = fields.String(
        load_default=None, metadata=_about("Folder of the key, such as users/123.", pattern=FOLDER)
    )
    overwrite = fields.Boolean(load_default=True, metadata=_about("false: 409 where the name is taken."))


class ListOptionsSchema(Schema):
    """Query of a listing."""

    prefix = fields.String(load_default="", validate=[validate.Length(max=1024), _PRINTABLE])
    limit = fields.Integer(load_default=100, validate=validate.Range(1, 1000))
    cursor = fields.String(
        load_default=None,
        validate=[validate.Length(max=3072), _NO_NUL],
        metadata=_about("next_cursor of the page before; it may be a key that is not listed."),
    )
    details = fields.Boolean(
        load_default=False,
        metadata=_about(f"Tell what each image was drawn from; a page has {MOST_DETAILS} at most then."),
    )

    @post_load
    def _bounded(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """The store is asked once for each image."""
        most = MOST_DETAILS if values["details"] else values["limit"]
        return {**values, "limit": min(values["limit"], most)}


def not_blank(text: str) -> None:
    """Raise `ValidationError` for a text of nothing but white space."""
    if not re.search(NOT_BLANK, text):
        raise ValidationError("Must not be empty.")


def is_size(text: str) -> None:
    """Raise `ValidationError` for what is no size that the generators take."""
    if not re.fullmatch(SIZE, text):
        raise ValidationError("Must be like 1024x1024, each side 64 to 2048 pixels.")


def is_unicode(text: str) -> None:
    """JSON can name half of a surrogate pair, which no encoding takes."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ValidationError("Is not valid Unicode.") from exc


class IdempotencySchema(Schema):
    """Header of a request that must not be done twice.

    See https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header.
    """

    idempotency_key = fields.String(
        data_key="Idempotency-Key",
        load_default=None,
        validate=validate.Regexp(
            r'^(?!""$)[!-~]{1,255}$', error="Must be 1 to 255 visible ASCII characters, for instance a UUID."
        ),
        metadata=_about("The same key with the same request gives the same answer for a day."),
    )

    @post_load
    def _unquoted(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """The draft wants it in quotes (RFC 9651, 3.3.3), most clients send it bare: it is the same key."""
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
        metadata=_about("What to draw.", example="A beautiful sunset over mountains", pattern=NOT_BLANK),
    )
    size = fields.String(
        load_default="1024x1024", validate=is_size, metadata=_about("Width x height.", pattern=f"^{SIZE}$")
    )
    format = fields.String(load_default="png", validate=validate.OneOf(tuple(FORMATS)))
    folder = fields.String(load_default=None, metadata=_about("Folder of the key.", pattern=FOLDER))
    seed = fields.Integer(strict=True, load_default=None, validate=validate.Range(0, MOST_SEED))
    negative_prompt = fields.String(load_default="", validate=[validate.Length(max=MAX_PROMPT), is_unicode])

    @post_load
    def _sides(self, values: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """`generate`'s arguments."""
        width, height = map(int, values.pop("size").split("x"))
        image_format = values.pop("format")
        return {**values, "width": width, "height": height, "image_format": image_format}
