"""The HTTP interface: blueprints, their schemas, the one error handler, and who may call what."""

from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, redirect, request
from flask_smorest import Api
from werkzeug.routing import RequestRedirect
from werkzeug.wrappers import Response as BaseResponse

from app.api import generate, images, openai, operations
from app.api.arguments import check_query
from app.api.error_responses import register_error_handlers
from app.api.images import KeyConverter
from app.api.openapi import KEY
from app.api.schemas import ErrorSchema
from app.components import Components
from app.core.errors import UnsupportedEncoding

_OPENAPI = {
    "API_TITLE": "S3 Image Server",
    "API_VERSION": "v1",
    "OPENAPI_VERSION": "3.0.3",
    "OPENAPI_URL_PREFIX": "/",
    "OPENAPI_JSON_PATH": "openapi.json",
    "API_SPEC_OPTIONS": {
        "info": {
            "description": "Upload or generate images, keep them in S3, serve them from a disk cache. "
            "Where the server has no API_KEYS, programs on its own machine need no key."
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
        },
    },
}


class _Api(Api):  # type: ignore[misc]
    ERROR_SCHEMA = ErrorSchema

    def _register_error_handlers(self) -> None:
        """flask-smorest's own handler has another JSON shape; ours are registered instead."""

    def _openapi_json(self) -> Response:
        """Besides the calls, say under which prefix they are, so that clients find them."""
        servers = {"servers": [{"url": request.script_root}]} if request.script_root else {}
        return jsonify({**self.spec.to_dict(), **servers})

    def _register_pagination_header(self) -> None:
        """Listings have cursors; flask-smorest's pages would be described and not be there."""


def register_api(flask: Flask, components: Components) -> None:
    """Add the HTTP interface over `components` to `flask`."""
    flask.config.update(_OPENAPI)
    flask.json.sort_keys = False  # type: ignore[attr-defined]
    flask.config["MAX_CONTENT_LENGTH"] = components.config.max_upload_bytes + images.MULTIPART_OVERHEAD
    flask.url_map.merge_slashes = False  # `//` in a key is the client's error, not ours to mend by a redirect
    flask.url_map.converters["key"] = KeyConverter
    register_error_handlers(flask)
    operations.count_requests(flask, components.metrics)
    flask.before_request(_redirect_by_path)
    flask.before_request(check_query)
    flask.before_request(_refuse_encoded)
    flask.after_request(_harden)
    api = _Api(flask)
    api.register_converter(KeyConverter, lambda _: KEY)
    for blueprint in (
        images.blueprint,
        generate.blueprint,
        openai.blueprint,
        operations.cache_blueprint,
        operations.blueprint,
        operations.metrics_blueprint,
    ):
        api.register_blueprint(blueprint)


def _redirect_by_path() -> BaseResponse | None:
    """Redirect from the mount point to the page (`/images` to `/images/`) without naming a host.

    Flask would name the one in `Host`, which any client can write.
    """
    if not isinstance(request.routing_exception, RequestRedirect):
        return None
    target = urlsplit(request.routing_exception.new_url)
    return redirect(target._replace(scheme="", netloc="").geturl(), request.routing_exception.code)


def _refuse_encoded() -> None:
    """A body that is compressed would be taken for a damaged image, or for JSON with mistakes."""
    codings = request.headers.get("Content-Encoding", "").split(",")
    is_encoded = not {coding.strip().lower() for coding in codings} <= {"", "identity"}
    if is_encoded and request.method == "POST" and request.url_rule is not None:
        raise UnsupportedEncoding


def _harden(response: Response) -> Response:
    """No answer is taken for another type than it has; JSON is for this client alone, and for now."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if response.mimetype == "application/json":
        response.headers.setdefault("Cache-Control", "no-store")
    return response
