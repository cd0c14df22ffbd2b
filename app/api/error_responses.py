"""The one error handler: all errors answer in one JSON shape, or below /v1 in OpenAI's."""

import logging
from http import HTTPStatus

from flask import Flask, Response, current_app, g, jsonify, request
from gunicorn.http.errors import NoMoreData, ParseException
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app.api.context import components
from app.api.openai_schemas import OPENAI_PATH, openai_error, openai_headers, openai_status
from app.core.errors import AppError, BadRequest, RangeNotSatisfiable

_log = logging.getLogger(__name__)

_MESSAGES = {
    404: "There is nothing at this address. /docs lists what there is.",
    405: "This address does not take this method.",
}

_KEPT_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate")


def register_error_handlers(flask: Flask) -> None:
    """Make every error of `flask`, of any status and from any layer, answer in the one shape."""
    flask.register_error_handler(AppError, _ours)
    flask.register_error_handler(HTTPException, _of_http)
    flask.register_error_handler(ParseException, _unreadable_body)
    flask.register_error_handler(NoMoreData, _unreadable_body)
    flask.register_error_handler(Exception, _unexpected)


def _answer(status: int, code: str, message: str, param: str | None = None) -> Response:
    if request.path.startswith(OPENAI_PATH):
        status = openai_status(status, code)
        response = jsonify(openai_error(status, code, message, param))
        response.headers.update(openai_headers(status, code))
    else:
        response = jsonify(success=False, message=message, code=code)
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="s3-image-server"'
    g.error_code = code
    return response


def _ours(error: AppError) -> Response:
    level = logging.WARNING if error.status >= 500 else logging.DEBUG
    _log.log(level, "%s %r: %s", request.method, request.path, error, extra={"code": error.code})
    response = _answer(error.status, error.code, error.message, _field(error))
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, RangeNotSatisfiable):
        response.headers["Content-Range"] = f"bytes */{error.size}"
    return response


def _field(error: AppError) -> str | None:
    """The field of a JSON body that is wrong, where it is that."""
    cause = error.__cause__
    fields = cause.messages_dict.get("json") if isinstance(cause, ValidationError) else None
    return next((name for name in fields if name != "_schema"), None) if isinstance(fields, dict) else None


def _of_http(error: HTTPException) -> Response:
    original = error.get_response()
    status = original.status_code
    name = "too_large" if isinstance(error, RequestEntityTooLarge) else HTTPStatus(status).phrase
    message = (
        _too_large()
        if status == 413
        else _MESSAGES.get(status) or error.description or HTTPStatus(status).phrase
    )
    response = _answer(status, name.lower().replace(" ", "_").replace("-", "_"), message)
    for header in _KEPT_HEADERS:
        if header in original.headers:
            response.headers[header] = original.headers[header]
    return response


def _too_large() -> str:
    """Which limit it was: that of images, of other bodies, or werkzeug's on the text of a form."""
    most = request.max_content_length or 0
    if request.content_length is not None and request.content_length <= most:
        return "The form has too much text, or too many fields."
    if most == current_app.config["MAX_CONTENT_LENGTH"]:
        return f"The image is larger than the {components().config.max_upload_bytes} bytes allowed."
    return f"The request body is larger than the {most} bytes allowed."


def _unreadable_body(error: Exception) -> Response:
    """gunicorn reads a body while the view does: chunks that are none, a client that went away."""
    return _ours(BadRequest("The request's body is not valid HTTP, or it ended too early."))


def _unexpected(error: Exception) -> Response:
    _log.error("%s %r failed", request.method, request.path, exc_info=error)
    return _answer(AppError.status, AppError.code, AppError.message)
