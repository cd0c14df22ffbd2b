"""5xx: what the store, the generator or the server itself can't do.

Every error the service raises on purpose, with what HTTP says of it.

    AppError                     500 internal_error
    ├── ConfigError              only at start: the settings are wrong
    ├── BadRequest               400 bad_request
    │   └── InvalidKey           400 invalid_key
    ├── KeyRequired              401 key_required
    ├── KeyRefused               403 key_refused
    ├── ScopeMissing             403 scope_missing
    ├── NotFound                 404 not_found
    ├── ModelNotFound            404 model_not_found
    ├── SlowClient               408 request_timeout
    ├── NameTaken                409 name_taken
    ├── IdempotencyKeyInUse      409 idempotency_key_in_use
    ├── PreconditionFailed       412 precondition_failed
    ├── TooLarge                 413 too_large
    ├── UnsupportedImage         415 unsupported_image
    ├── UnsupportedEncoding      415 unsupported_encoding
    ├── RangeNotSatisfiable      416 range_not_satisfiable
    ├── UndecodableImage         422 undecodable_image
    │   └── TooManyPixels        422 too_many_pixels
    ├── PromptRefused            422 prompt_refused
    ├── IdempotencyKeyReused     422 idempotency_key_reused
    ├── GeneratorBusy            429 generator_busy
    ├── RateLimited              429 rate_limited
    ├── Busy                     503 busy
    ├── CacheStuck               503 cache_stuck
    ├── CacheUnreadable          503 cache_unreadable
    ├── StateUnavailable         503 state_unavailable
    ├── StoreError               502 store_error
    │   ├── StoreRefused         502 store_refused
    │   ├── StoreUnreachable     503 store_unreachable
    │   │   └── StoreBusy        503 store_busy
    │   └── StoreTimeout         504 store_timeout
    └── GeneratorError           502 generator_error
        ├── GeneratorRefused     502 generator_refused
        ├── GeneratorUnreachable 503 generator_unreachable
        └── GeneratorTimeout     504 generator_timeout

`message` is for people outside and never holds a path, a bucket or a credential;
`detail` is for the log alone.

The root of the tree, and the one error that is raised only at start.

4xx: what the client can do something about.
"""

import math


class AppError(Exception):
    """Base of the tree; a subclass sets `status`, `code` and the default public `message`."""

    status = 500
    code = "internal_error"
    message = "Something went wrong on our side. Please try again."
    retry_after: int | None = None
    """Seconds after which another try makes sense, for `Retry-After` (RFC 9110, 10.2.3)."""

    def __init__(self, message: str | None = None, *, detail: str = "") -> None:
        self.message = message or type(self).message
        self.detail = detail
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} [{self.detail}]" if self.detail else self.message


class ConfigError(AppError):
    """The settings can't be used; the message lists every problem by name and value."""

    code = "config_error"


class BadRequest(AppError):
    """The request can't be understood; the message says what to send instead."""

    status = 400
    code = "bad_request"
    message = "The request could not be understood."


class InvalidKey(BadRequest):
    """An object key, name or folder outside the grammar of `app.core.object_keys`."""

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


class Busy(AppError):
    """As much is in work as memory and threads are meant for."""

    status = 503
    code = "busy"
    message = "The server has too much to do right now. Please try again shortly."
    retry_after = 2


class CacheStuck(AppError):
    """An image that was deleted or replaced can't be removed from the cache: it would be served for ever."""

    status = 503
    code = "cache_stuck"
    message = "The image could not be removed from the server's cache. Please try again."
    retry_after = 5


class CacheUnreadable(AppError):
    """The cache's figures can't be had: its directory or index is out of order."""

    status = 503
    code = "cache_unreadable"
    message = "The cache can't be read right now. Images come from the store meanwhile."
    retry_after = 10


class StateUnavailable(AppError):
    """The directory with the records of generations can't be read or written."""

    status = 503
    code = "state_unavailable"
    message = "The server can't keep its records of generations. Its operator finds the reason in the log."
    retry_after = 30


class StoreError(AppError):
    """The store answered something that makes no sense."""

    status = 502
    code = "store_error"
    message = "The image store gave an answer that can't be used."


class StoreRefused(StoreError):
    """The store said no: credentials, permissions or its own settings."""

    code = "store_refused"
    message = "The image store refused the request. Its operator finds the reason in the log."


class StoreUnreachable(StoreError):
    """No connection to the store, or the store is overloaded."""

    status = 503
    code = "store_unreachable"
    message = "The image store can't be reached right now. Please try again shortly."
    retry_after = 5


class StoreBusy(StoreUnreachable):
    """The most requests allowed wait for the store already, or it does not answer those that call it."""

    code = "store_busy"
    message = "The image store is too slow right now. Please try again shortly."


class StoreTimeout(StoreError):
    """The store did not answer within the deadline."""

    status = 504
    code = "store_timeout"
    message = "The image store did not answer in time. Please try again."
    retry_after = 5


class GeneratorError(AppError):
    """The generator failed or gave something that is no image."""

    status = 502
    code = "generator_error"
    message = "The image model gave no usable image. Please try again."


class GeneratorRefused(GeneratorError):
    """The generator said no to us, not to the prompt: credentials, quota, or a model that is gone."""

    code = "generator_refused"
    message = "The image model refused the request. The server's operator finds the reason in the log."


class GeneratorUnreachable(GeneratorError):
    """No connection to the generator, or it is overloaded: another try may succeed.

    `wait` is for how many seconds the generator asks to be left alone, where it says so.
    """

    status = 503
    code = "generator_unreachable"
    message = "The image model can't be reached right now. Please try again shortly."
    retry_after = 10

    def __init__(self, message: str | None = None, *, detail: str = "", wait: float | None = None) -> None:
        super().__init__(message, detail=detail)
        self.wait = wait
        if wait is not None:
            self.retry_after = math.ceil(wait)


class GeneratorTimeout(GeneratorError):
    """The generator did not finish within the deadline."""

    status = 504
    code = "generator_timeout"
    message = "The image model did not finish in time. Please try again."
