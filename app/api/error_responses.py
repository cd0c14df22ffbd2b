"""Error responses in JSON. All have the same shape, except those below `/v1`, which have OpenAI's shape."""

from http import HTTPStatus

from flask import Flask, Response, current_app, g, jsonify, request
from gunicorn.http.errors import NoMoreData, ParseException
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app.api.context import components
from app.api.openai_schemas import OPENAI_PATH, openai_error, openai_headers, openai_status
from app.core.errors import AppError, BadRequest, TooLarge
from app.delivery.fast_path import log_error

_MESSAGES = {
    404: "There is nothing at this URL. See /docs for the available calls.",
    405: "This URL does not support this method.",
}

_KEPT_HEADERS = ("Allow", "Retry-After", "WWW-Authenticate")


def register_error_handlers(flask: Flask) -> None:
    """Register handlers that turn every error into a JSON response, wherever the error was raised."""
    flask.register_error_handler(AppError, _app_error)
    flask.register_error_handler(HTTPException, _http_error)
    flask.register_error_handler(ParseException, _malformed_body)
    flask.register_error_handler(NoMoreData, _malformed_body)
    flask.register_error_handler(Exception, _internal_error)


def _app_error(error: AppError) -> Response:
    log_error(error, request.method, request.path)
    return _respond(error)


def _respond(error: AppError) -> Response:
    status = error.status
    if request.path.startswith(OPENAI_PATH):
        status = openai_status(status, error.code)
        response = jsonify(openai_error(status, error.code, error.message, _field(error)))
        response.headers.update(openai_headers(status, error.code))
    else:
        response = jsonify(error.body())
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(error.headers())
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="s3-image-server"'
    g.error_code = error.code
    return response


def _field(error: AppError) -> str | None:
    """Return the name of the invalid field in a JSON body, or None if no field caused the error."""
    cause = error.__cause__
    fields = cause.messages_dict.get("json") if isinstance(cause, ValidationError) else None
    return next((name for name in fields if name != "_schema"), None) if isinstance(fields, dict) else None


def _http_error(error: HTTPException) -> Response:
    if isinstance(error, RequestEntityTooLarge):
        return _respond(_too_large())
    original = error.get_response()
    status = original.status_code
    message = _MESSAGES.get(status) or error.description or HTTPStatus(status).phrase
    response = _respond(AppError.from_status(status, message))
    for header in _KEPT_HEADERS:
        if header in original.headers:
            response.headers[header] = original.headers[header]
    return response


def _too_large() -> TooLarge:
    """Return an error that names the exceeded limit: for images, for other bodies, or for text in forms."""
    maximum = request.max_content_length or 0
    if request.content_length is not None and request.content_length <= maximum:
        return TooLarge("The form has too much text or too many fields.")
    if maximum == current_app.config["MAX_CONTENT_LENGTH"]:
        return TooLarge.for_image(components().config.max_upload_bytes)
    return TooLarge(f"The request body exceeds the limit of {maximum} bytes.")


def _malformed_body(error: Exception) -> Response:
    """Handle an error that gunicorn raised while a view was reading a chunked body."""
    return _app_error(BadRequest("The request body is not valid HTTP, or it ended too early."))


def _internal_error(error: Exception) -> Response:
    log_error(error, request.method, request.path)
    return _respond(AppError())
