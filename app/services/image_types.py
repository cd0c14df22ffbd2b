"""Which objects in a store are images, and the content types with which they are served."""

from app.core.errors import NotFound
from app.core.objects import CONTENT_TYPES, ObjectFacts

_UNSPECIFIC_TYPES = {"", "application/octet-stream", "binary/octet-stream"}
"""Content types that don't tell what an object is. The type is empty in listings. If an object is stored
without a type, S3, compatible servers and tools set one of the two other types
(https://docs.aws.amazon.com/sdkfornet1/latest/apidocs/html/P_Amazon_S3_Model_CopyObjectRequest_ContentType.htm)."""

_TYPE_ALIASES = {"image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "image/x-png": "image/png"}
"""Maps widely used content types that are not registered to the registered types that they stand for."""


def served_type(facts: ObjectFacts) -> str:
    """Return the content type to serve. Raise `NotFound` unless the object is an image."""
    content_type = image_type(facts)
    if content_type is None:  # the server must not serve other objects in the bucket
        raise NotFound(detail=f"not an image but {facts.content_type}")
    return content_type


def image_type(facts: ObjectFacts) -> str | None:
    """Return the object's content type if it is the type of a supported image format, else None.

    If the object was stored without a specific content type, the key's extension determines the type.
    """
    content_type = facts.content_type.partition(";")[0].strip().lower()
    content_type = _TYPE_ALIASES.get(content_type, content_type)
    if content_type in _UNSPECIFIC_TYPES:
        return CONTENT_TYPES.get(facts.key.rpartition(".")[2].lower())
    return content_type if content_type in CONTENT_TYPES.values() else None
