"""`/api/images`: upload, serve, list and delete images."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import Any
from urllib.parse import urlencode

from flask import Response, redirect, request
from marshmallow import ValidationError
from werkzeug.datastructures import MultiDict
from werkzeug.routing import BaseConverter
from werkzeug.wrappers import Response as BaseResponse

from app.api.arguments import Blueprint, any_query, validation_message
from app.api.auth import KEY_SECURITY, key_required
from app.api.context import absolute_url, components
from app.api.forms import read_upload
from app.api.openapi import FORM_BODY, IMAGE_BODY, SERVE_HEADERS, SERVE_RESPONSES, UNTYPED_BODY
from app.api.schemas import (
    DeletedSchema,
    ImagePageSchema,
    ImageSchema,
    ListOptionsSchema,
    UploadOptionsSchema,
)
from app.cache.lookup import CachedObject
from app.core.errors import BadRequest
from app.core.object_keys import check_readable, is_readable
from app.core.object_metadata import ImageInfo
from app.core.request_context import CACHE_STATUS, OBJECT_KEY
from app.core.variant_keys import VariantPath, can_have_variants, requested_path
from app.delivery.conditional import content_length_sent, represent, response_body
from app.services.images import ListedImage, StoredImage
from app.services.urls import variant_url_path
from app.services.variant_rules import SIGNATURE_NAMES


class KeyConverter(BaseConverter):
    """Matches the rest of the path, including leading and double slashes. The views reject invalid keys."""

    regex = "(?s:.+?)"
    part_isolating = False
    weight = 200


MULTIPART_OVERHEAD_BYTES = 64 * 1024
"""Maximum size of the boundaries, headers and other fields that a multipart form has besides the image."""

blueprint = Blueprint("images", __name__, url_prefix="/api/images", description="Upload, serve, list, delete")


def image_fields(image: StoredImage, message: str) -> dict[str, Any]:
    """Return the fields of `ImageSchema`, and set the object key for the access log."""
    request.environ[OBJECT_KEY] = image.key
    return {
        "success": True,
        "message": message,
        "image_url": absolute_url(image.url),
        "key": image.key,
        "content_type": image.content_type,
        "bytes": image.size,
        **picture_fields(image.key, image.info),
        "width": image.width,
        "height": image.height,
        "frames": image.frames,
    }


def picture_fields(key: str, info: ImageInfo | None) -> dict[str, Any]:
    """Return the fields of `PictureSchema`. Those that describe the picture are None if `info` is None."""
    names = [field.name for field in fields(ImageInfo)]
    width = None if info is None else info.width
    return {
        **{name: getattr(info, name, None) for name in names},
        "variants": components().variant_urls.urls_of(key, width, absolute_url),
    }


@blueprint.route("", methods=["POST"])
@key_required("upload")
@blueprint.doc(
    security=KEY_SECURITY,
    requestBody={"content": {**FORM_BODY, **IMAGE_BODY, **UNTYPED_BODY}, "required": True},
)
@blueprint.arguments(UploadOptionsSchema, location="query")
@blueprint.response(201, ImageSchema, description="Stored")
@blueprint.alt_response(200, schema=ImageSchema, description="The image was already stored")
def upload(options: dict[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Check an image and store it.

    Send each option at most once, either as a form field or in the query.
    """
    sent = read_upload(request)
    _reject_repeated(sent.fields)
    image = components().images.upload_image(sent.data, **{**options, **_form_options(sent.fields)})
    fields = image_fields(
        image, "Image uploaded successfully" if image.created else "Image was already stored"
    )
    return fields, 201 if image.created else 200, {"Location": fields["image_url"]}


@blueprint.route("/<key:key>", methods=["GET"])
@any_query
@blueprint.doc(parameters=SERVE_HEADERS, responses=SERVE_RESPONSES)
def serve(key: str) -> BaseResponse:
    """Return the bytes of the image. Conditional and range requests (RFC 9110) are supported.

    A query such as `?w=640&format=webp` redirects to the URL of that variant of the image.
    """
    variant = components().variant_rules.from_query(request.args) if can_have_variants(key) else None
    if variant is not None:
        return redirect_to_variant(VariantPath(key, *variant))
    return image_response(components().images.fetch(key))


def redirect_to_variant(path: VariantPath) -> BaseResponse:
    """Return a permanent redirect to the canonical URL of a variant. It keeps the signature in the query.

    Raises `InvalidKey` if the URL might lead elsewhere, because clients could change its path.
    """
    check_readable(path.source)
    signature = {name: request.args[name] for name in SIGNATURE_NAMES if name in request.args}
    query = f"?{urlencode(signature)}" if signature else ""
    return redirect(f"{request.script_root}{variant_url_path(path)}{query}", 308)


def image_response(cached: CachedObject, extra_headers: Iterable[tuple[str, str]] = ()) -> Response:
    """Return the response to a GET or HEAD request for a cached object."""
    key = requested_path(cached.facts.key)
    request.environ[OBJECT_KEY], request.environ[CACHE_STATUS] = key, cached.status.value
    try:
        found = represent(request.environ, cached)
        body = response_body(request.environ, cached, found)
    except BaseException:
        cached.body.close()
        raise
    components().cache.counts.add(cached.status, content_length_sent(request.environ, found))
    headers = [*found.headers, *extra_headers]
    return Response(body, found.status, headers, direct_passthrough=True)


@blueprint.route("", methods=["GET"])
@key_required("list")
@blueprint.doc(security=KEY_SECURITY)
@blueprint.arguments(ListOptionsSchema, location="query")
@blueprint.response(200, ImagePageSchema)
def list_images(options: dict[str, Any]) -> dict[str, Any]:
    """List the stored images, page by page, in the order of their keys."""
    service = components().images
    found, cursor = service.list(**options)
    images = [image for image in found if is_readable(image.key)]
    unsafe = len(found) - len(images)
    entries = [_listed_fields(image, details=options["details"]) for image in images]
    message = f"{len(entries)} image{'' if len(entries) == 1 else 's'}"
    if unsafe:
        message += f"; {unsafe} not listed, because their keys can't be used in a URL"
    return {
        "success": True,
        "message": message,
        "images": entries,
        "next_cursor": cursor,
        "unsafe_keys": unsafe,
    }


def _listed_fields(image: ListedImage, *, details: bool) -> dict[str, Any]:
    """Return the fields of `ListedImageSchema`."""
    parts = components()
    fields = {
        "key": image.key,
        "image_url": absolute_url(parts.images.urls.url_of(image.key)),
        "content_type": image.content_type,
        "bytes": image.size,
        "last_modified": image.last_modified,
    }
    if not details:
        return {**fields, **picture_fields(image.key, None)}
    info = image.info or parts.variants.known_info(image.key)
    return {
        **fields,
        **picture_fields(image.key, info),
        "asked": image.prompt_metadata,
        "original_name": image.original_name,
    }


@blueprint.route("/<key:key>", methods=["DELETE"])
@key_required("delete")
@blueprint.doc(security=KEY_SECURITY)
@blueprint.response(200, DeletedSchema)
def delete(key: str) -> dict[str, Any]:
    """Delete an image from the store and from the cache."""
    components().images.delete(key)
    request.environ[OBJECT_KEY] = key
    return {"success": True, "message": "Image deleted", "key": key}


def _form_options(form: MultiDict[str, str]) -> dict[str, Any]:
    """Return the options that were sent as form fields.

    Raises `BadRequest` for unknown fields, so that a misspelled `overwrite` is not ignored.
    """
    try:
        loaded: dict[str, Any] = UploadOptionsSchema(partial=True).load(form)
    except ValidationError as exc:
        raise BadRequest(validation_message(exc)) from exc
    return {name: value for name, value in loaded.items() if name in form}


def _reject_repeated(form: MultiDict[str, str]) -> None:
    """Raise `BadRequest` for an option that was sent more than once in the form and the query together."""
    sent = Counter([*request.args.keys(), *(name for name, _ in form.items(multi=True))])
    repeated = [name for name, times in sent.items() if times > 1]
    if repeated:
        raise BadRequest(" ".join(f"{name}: Sent more than once." for name in repeated))
