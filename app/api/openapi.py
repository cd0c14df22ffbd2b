"""Parts of the OpenAPI document that are not schemas: key patterns, image bodies and headers."""

from typing import Any

from app.core.objects import CONTENT_TYPES, FORMATS

_EXTENSIONS = "|".join("".join(f"[{c}{c.upper()}]" for c in extension) for extension in CONTENT_TYPES)
_SEGMENT = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}"
_PARENT = rf"(?![^/]*\.(?:{_EXTENSIONS})(?:/|$)){_SEGMENT}"

_NAME = r"(?!\.)[^\x00-\x1f\x7f-\x9f\\/]{1,255}"

FOLDER = f"^(?:/*{_PARENT}(?:/{_PARENT})*/*)?$"
NAME = rf"^(?!.*\.(?:{_EXTENSIONS})/){_NAME}(?:/{_NAME})*$"
"""`FOLDER` and `NAME` are patterns of the folders and names that `app.core.object_keys` accepts. They can't
express the maximum length of the whole key, which is 1024 characters."""

_READABLE_CHARACTER = r"[^\x00-\x1f\x7f-\x9f\\/]"
_READABLE = rf"(?!\.{{1,2}}(?:/|$)){_READABLE_CHARACTER}+"

KEY: dict[str, Any] = {"type": "string", "maxLength": 1024, "pattern": f"^{_READABLE}(?:/{_READABLE})*$"}
"""The schema of the keys that `check_readable` accepts."""

SOURCE_KEY: dict[str, Any] = {
    "type": "string",
    "maxLength": 1024,
    "pattern": rf"^(?:{_READABLE}/)*(?!\.){_READABLE_CHARACTER}+\.(?:{_EXTENSIONS})$",
}
"""The schema of the keys of images that can have variants."""

_BINARY = {"type": "string", "format": "binary"}

IMAGE_BODY = {image_format.content_type: {"schema": _BINARY} for image_format in FORMATS.values()}

UNTYPED_BODY = {"application/octet-stream": {"schema": _BINARY}}

FORM_BODY = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {
                "image": _BINARY,
                "name": {"type": "string", "pattern": NAME},
                "folder": {"type": "string", "pattern": FOLDER},
                "overwrite": {"type": "boolean"},
            },
            "required": ["image"],
            "additionalProperties": False,
        },
        "encoding": {"image": {"contentType": ", ".join(IMAGE_BODY)}},
    }
}


def _header(name: str, **schema: Any) -> dict[str, Any]:
    return {"in": "header", "name": name, "schema": {"type": "string", **schema}}


SERVE_HEADERS = [
    _header("If-Match"),
    _header("If-None-Match"),
    _header("If-Modified-Since"),
    _header("If-Unmodified-Since"),
    _header("Range", example="bytes=0-99"),
    _header("If-Range"),
]

VARIANT_PARAMETERS = [
    *SERVE_HEADERS,
    _header("Accept", example="image/avif,image/webp,*/*"),
    {"in": "query", "name": "sig", "schema": {"type": "string"}, "description": "The signature of the URL."},
    {
        "in": "query",
        "name": "exp",
        "schema": {"type": "string"},
        "description": "When it expires.",
    },
]

SERVE_RESPONSES = {
    "200": {"description": "The bytes of the image", "content": IMAGE_BODY},
    "206": {
        "description": "The requested bytes",
        "content": IMAGE_BODY,
        "headers": {"Content-Range": {"schema": {"type": "string"}, "required": True}},
    },
    "304": {"description": "The client has the current version"},
}
