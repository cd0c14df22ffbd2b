"""4xx: what the client can do something about."""

from app.errors.base import AppError


class BadRequest(AppError):
    """The request can't be understood; the message says what to send instead."""

    status = 400
    code = "bad_request"
    message = "The request could not be understood."


class InvalidKey(BadRequest):
    """An object key, name or folder outside the grammar of `app.keys`."""

    code = "invalid_key"
    message = "That is not a valid image key."


class KeyRequired(AppError):
    """The call needs an API key and none came."""

    status = 401
    code = "key_required"
    message = "This call needs an API key."


class KeyRefused(AppError):
    """An API key came that is not one of ours."""

    status = 403
    code = "key_refused"
    message = "That API key is not accepted."


class ScopeMissing(AppError):
    """The API key is good, but not for this call; `scope` is what it lacks."""

    status = 403
    code = "scope_missing"

    def __init__(self, scope: str) -> None:
        super().__init__(f"That API key may not do this: it lacks the scope '{scope}'.")
        self.scope = scope


class NotFound(AppError):
    """The store says that there is no object under this key."""

    status = 404
    code = "not_found"
    message = "There is no image under this key."


class ModelNotFound(AppError):
    """A model other than the configured one was asked for."""

    status = 404
    code = "model_not_found"
    message = "This server does not have that model. GET /v1/models tells which it has."


class SlowClient(AppError):
    """The request's body came too slowly, or was given up for others that wait (RFC 9110, 15.5.9)."""

    status = 408
    code = "request_timeout"
    message = "The request's body came too slowly. Please send it again over a faster connection."


class NameTaken(AppError):
    """The name is in use and the client asked not to overwrite."""

    status = 409
    code = "name_taken"
    message = "An image with this name exists already. Choose another name, or send overwrite=true."


class IdempotencyKeyInUse(AppError):
    """A request with the same Idempotency-Key is under way, and takes longer than this one can wait."""

    status = 409
    code = "idempotency_key_in_use"
    message = "A request with this Idempotency-Key is still under way. Please send it again later."
    retry_after = 10


class PreconditionFailed(AppError):
    """If-Match or If-Unmodified-Since does not hold (RFC 9110, 13.1)."""

    status = 412
    code = "precondition_failed"
    message = "The image is not the version that the request asks for."


class TooLarge(AppError):
    """More bytes than allowed."""

    status = 413
    code = "too_large"
    message = "The request body is too large."


class UnsupportedImage(AppError):
    """The bytes are not an image in one of the allowed formats."""

    status = 415
    code = "unsupported_image"
    message = "This is not an image in a format that we take."


class UnsupportedEncoding(AppError):
    """The request's body is compressed (RFC 9110, 15.5.16); we would have to bound what it unpacks to."""

    status = 415
    code = "unsupported_encoding"
    message = "Send the body as it is: a Content-Encoding such as gzip is not taken."


class RangeNotSatisfiable(AppError):
    """No byte of the range asked for exists (RFC 9110, 15.5.17)."""

    status = 416
    code = "range_not_satisfiable"
    message = "The image has no bytes in the range asked for."

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size


class UndecodableImage(AppError):
    """The bytes begin like an image but can't be decoded to the end."""

    status = 422
    code = "undecodable_image"
    message = "The image is damaged or incomplete: it could not be decoded."


class TooManyPixels(UndecodableImage):
    """Width × height × frames, or the number of frames, is over the limit."""

    code = "too_many_pixels"
    message = "The image has too many pixels."


class PromptRefused(AppError):
    """The generator won't draw this prompt."""

    status = 422
    code = "prompt_refused"
    message = "The image model refused this prompt. Please change it."


class IdempotencyKeyReused(AppError):
    """The Idempotency-Key was sent with another request before."""

    status = 422
    code = "idempotency_key_reused"
    message = "This Idempotency-Key was sent with another request before. Take a new key for each request."


class GeneratorBusy(AppError):
    """As many images are being generated as may be."""

    status = 429
    code = "generator_busy"
    message = "As many images are being generated as this server takes on. Please try again shortly."
    retry_after = 5


class RateLimited(AppError):
    """The client has called too often; `retry_after` says how long to wait."""

    status = 429
    code = "rate_limited"
    message = "Too many requests. Please wait a while and try again."

    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after
