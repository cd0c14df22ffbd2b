"""`/api/images/<key>/<variant>`: smaller images and other formats, made from stored images."""

import time
from dataclasses import replace
from typing import Any

from flask import request
from werkzeug.routing import BaseConverter
from werkzeug.wrappers import Response as BaseResponse

from app.api.arguments import any_query
from app.api.context import absolute_url, components
from app.api.images import blueprint, image_response, picture_fields, redirect_to_variant
from app.api.openapi import SERVE_RESPONSES, VARIANT_PARAMETERS
from app.api.schemas import ImageInfoSchema
from app.cache.lookup import CachedObject, CacheStatus
from app.core.errors import InvalidVariant, NotFound, SignatureRefused, VariantNotPermitted
from app.core.object_keys import check_readable, is_readable
from app.core.request_context import OBJECT_KEY
from app.core.variant_keys import INFO, VariantPath, is_first_frame, is_variant_key, split_variant_path
from app.core.variant_specs import VariantSpec
from app.delivery.negotiation import FALLBACK, VARY, preferred_format
from app.services.variants import ImageDescription

_CACHEABLE = {"Cache-Control": "public, max-age=300"}
"""The headers of facts that never change. The time is short, since the URLs depend on the settings."""

_MADE = (CacheStatus.MISS, CacheStatus.BYPASS)
"""The results of the cache for a variant that was made for this request."""

_FIRST_FRAME = ("X-Image-Variant", "first-frame")
"""Says that the variant of an animation is only its first frame, since all frames together are too large."""


class SourceConverter(BaseConverter):
    """Matches the key of an image that can have variants, which ends in an image extension."""

    regex = r"(?s:.*[^/]\.(?i:png|jpg|jpeg|gif|webp|avif))"
    part_isolating = False


@blueprint.route("/<source:key>/info", methods=["GET"])
@any_query
@blueprint.response(200, ImageInfoSchema)
def serve_info(key: str) -> BaseResponse | tuple[dict[str, Any], int, dict[str, str]]:
    """Return the facts about an image: its type, its size and a placeholder."""
    try:
        found = components().variants.describe(key)
    except NotFound:
        return _object_instead(f"{key}/{INFO}")
    request.environ[OBJECT_KEY] = key
    fields = {
        "success": True,
        "message": "Facts about the image",
        "key": key,
        "image_url": absolute_url(components().images.urls.url_of(key)),
        "content_type": found.content_type,
        "bytes": found.bytes,
        "last_modified": found.last_modified,
        **picture_fields(key, found.info),
    }
    return fields, 200, _CACHEABLE if _may_be_cached(found) else {}


def _may_be_cached(description: ImageDescription) -> bool:
    """Return whether caches may keep the facts: if the image never changes, and its URL does not expire."""
    return description.is_immutable and components().config.image_urls != "presigned"


@blueprint.route("/<source:key>/<variant>", methods=["GET"])
@any_query
@blueprint.doc(parameters=VARIANT_PARAMETERS, responses=SERVE_RESPONSES)
def serve_variant(key: str, variant: str) -> BaseResponse:
    """Return a variant of an image, such as `w640.webp` or `thumb`.

    Without an extension, the format is the best one that the `Accept` header names: AVIF, WebP, or else JPEG
    or PNG. A variant that is not listed in the settings needs a signature. If the variant is spelled
    differently than usual, the response redirects to its usual URL.
    """
    check_readable(key)
    requested = f"{key}/{variant}"
    path = split_variant_path(requested)
    assert path is not None
    try:
        canonical, spec, is_listed = _permitted(path)
    except (InvalidVariant, VariantNotPermitted, SignatureRefused):
        if foreign := _foreign_object(requested):
            return foreign
        raise
    if str(canonical) != requested:
        return _foreign_object(requested) or redirect_to_variant(canonical)
    try:
        cached, headers = _fetch(canonical, spec, is_listed=is_listed)
    except NotFound:
        return _object_instead(requested)
    response = image_response(cached, headers)
    if cached.facts.is_immutable and not is_listed and (expires_at := request.args.get("exp")):
        # Caches must not serve the variant for longer than its signature is valid.
        response.headers["Cache-Control"] = f"public, max-age={max(int(expires_at) - int(time.time()), 0)}"
    return response


def _object_instead(path: str) -> BaseResponse:
    """Return the object that other software has stored under the path of a variant of a missing image.

    Raises `NotFound` if there is none.
    """
    if not is_readable(path):  # the path is longer than a key can be
        raise NotFound(detail="neither the image nor an object under the path of the variant")
    return image_response(components().images.fetch(path))


def _foreign_object(path: str) -> BaseResponse | None:
    """Return the object that other software has stored under the path of a variant, or None."""
    if not components().images.is_foreign_object(path):
        return None
    try:
        return image_response(components().images.fetch(path))
    except NotFound:  # deleted in the meantime
        return None


def _fetch(
    path: VariantPath, spec: VariantSpec, *, is_listed: bool
) -> tuple[CachedObject, list[tuple[str, str]]]:
    """Return a permitted variant, in the best format if the path has no extension, and headers to add."""
    headers = []
    if not path.extension:
        path = replace(path, extension=_negotiated_extension(path, spec))
        path, spec = components().variant_rules.canonical(path)  # `w32,still` as JPEG is `w32.jpg`
        headers.append(VARY)
    cached = components().variants.fetch(path, spec, is_listed=is_listed)
    if is_variant_key(cached.facts.key) and cached.status not in _MADE:
        components().metrics.variants_hits.inc()
    if is_first_frame(cached.facts.key):
        headers.append(_FIRST_FRAME)
    return cached, headers


def _permitted(path: VariantPath) -> tuple[VariantPath, VariantSpec, bool]:
    """Return the canonical path, the spec, and whether the variant is listed.

    Raises `InvalidVariant`, `VariantNotPermitted` and `SignatureRefused`.
    """
    rules = components().variant_rules
    canonical, spec = rules.canonical(path)
    is_listed = rules.is_listed(canonical)
    if not is_listed:
        rules.check(canonical, request.args)
    return canonical, spec, is_listed


def _negotiated_extension(path: VariantPath, spec: VariantSpec) -> str:
    extension = preferred_format(request.headers.get("Accept", ""))
    if extension == FALLBACK:
        return components().variants.fallback_extension(path.source, still=spec.still)
    return extension
