"""The HTTP interface with its Flask blueprints, schemas, authorization and error responses."""

from urllib.parse import urlsplit

from flask import Flask, Response, jsonify, redirect, request
from flask_smorest import Api
from werkzeug.routing import RequestRedirect
from werkzeug.wrappers import Response as BaseResponse

from app.api import generate, images, openai, operations
from app.api.arguments import check_query
from app.api.error_responses import register_error_handlers
from app.api.images import KeyConverter
from app.api.openapi import KEY, SOURCE_KEY
from app.api.schemas import ErrorSchema
from app.api.variants import SourceConverter
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
            "description": "Upload or generate images, store them in S3, and serve them from a disk cache. "
            "If API_KEYS is not set, programs on the server's machine need no key."
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
        """Do nothing, since `register_error_handlers` registers handlers instead of flask-smorest's."""

    def _openapi_json(self) -> Response:
        """Return the OpenAPI document.

        If the application has a mount point, the document names the mount point as the server URL.
        """
        servers = {"servers": [{"url": request.script_root}]} if request.script_root else {}
        return jsonify({**self.spec.to_dict(), **servers})

    def _register_pagination_header(self) -> None:
        """Do nothing, since listings use cursors instead of the page numbers of flask-smorest."""


def register_api(flask: Flask, components: Components) -> None:
    """Add the HTTP interface to `flask`. Its views use `components`."""
    flask.config.update(_OPENAPI)
    flask.json.sort_keys = False  # type: ignore[attr-defined]
    flask.config["MAX_CONTENT_LENGTH"] = components.config.max_upload_bytes + images.MULTIPART_OVERHEAD_BYTES
    flask.url_map.merge_slashes = False  # reject `//` in a key instead of redirecting
    flask.url_map.converters["key"] = KeyConverter
    flask.url_map.converters["source"] = SourceConverter
    register_error_handlers(flask)
    operations.count_requests(flask, components.metrics)
    flask.before_request(_redirect_without_host)
    flask.before_request(check_query)
    flask.before_request(_reject_encoded_body)
    flask.after_request(_add_default_headers)
    api = _Api(flask)
    api.register_converter(KeyConverter, lambda _: KEY)
    api.register_converter(SourceConverter, lambda _: SOURCE_KEY)
    for blueprint in (
        images.blueprint,
        generate.blueprint,
        openai.blueprint,
        operations.cache_blueprint,
        operations.blueprint,
        operations.metrics_blueprint,
    ):
        api.register_blueprint(blueprint)


def _redirect_without_host() -> BaseResponse | None:
    """Redirect from a mount point such as `/images` to the page at `/images/`, with a URL that has no host.

    Flask would add the host from the `Host` header, which clients can set to any value.
    """
    if not isinstance(request.routing_exception, RequestRedirect):
        return None
    target = urlsplit(request.routing_exception.new_url)
    return redirect(target._replace(scheme="", netloc="").geturl(), request.routing_exception.code)


def _reject_encoded_body() -> None:
    """Raise `UnsupportedEncoding` for a compressed body.

    Later checks would call such a body damaged or malformed.
    """
    codings = request.headers.get("Content-Encoding", "").split(",")
    is_encoded = not {coding.strip().lower() for coding in codings} <= {"", "identity"}
    if is_encoded and request.method == "POST" and request.url_rule is not None:
        raise UnsupportedEncoding


def _add_default_headers(response: Response) -> Response:
    """Add headers that forbid content sniffing and the caching of JSON."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if response.mimetype == "application/json":
        response.headers.setdefault("Cache-Control", "no-store")
    return response
