"""Choose the format of a variant by the `Accept` header (RFC 9110, 12.5.1)."""

from functools import lru_cache

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

VARY = ("Vary", "Accept")
"""The header of all responses whose format was chosen by the `Accept` header."""

FALLBACK = ""
"""Stands for the format that every browser shows: JPEG, or PNG for transparent or animated images."""

_MODERN = ("avif", "webp")
"""The formats to prefer, best first. They are chosen only if the header names them, since `*/*` and `image/*`
are also sent by clients that don't know them."""

_MAX_CACHED_CHARACTERS = 512


def preferred_format(accept: str) -> str:
    """Return the extension of the format to send: `avif`, `webp` or `FALLBACK`.

    A header that can't be parsed counts as a header that accepts anything.
    """
    return (_cached if len(accept) <= _MAX_CACHED_CHARACTERS else _preferred)(accept)


def _preferred(accept: str) -> str:
    accepted = parse_accept_header(accept, MIMEAccept)
    named = {media_type.partition(";")[0].strip().lower(): quality for media_type, quality in accepted}
    best, best_quality = FALLBACK, max(accepted.quality("image/jpeg"), accepted.quality("image/png"))
    for extension in reversed(_MODERN):
        quality = named.get(f"image/{extension}", 0)
        if quality > 0 and quality >= best_quality:
            best, best_quality = extension, quality
    return best


_cached = lru_cache(maxsize=256)(_preferred)
