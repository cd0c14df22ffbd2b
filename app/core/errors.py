"""Every error that the application raises on purpose, with its HTTP status and code.

    AppError                     500 internal_error
    ├── ConfigError              raised only at startup, if the settings are invalid
    ├── BadRequest               400 bad_request
    │   ├── InvalidKey           400 invalid_key
    │   ├── InvalidVariant       400 invalid_variant
    │   └── VariantNotPermitted  400 variant_not_permitted
    ├── KeyRequired              401 key_required
    ├── KeyRefused               403 key_refused
    ├── ScopeMissing             403 scope_missing
    ├── SignatureRefused         403 signature_refused
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
    │   ├── TooManyPixels        422 too_many_pixels
    │   ├── VariantFailed        422 variant_failed
    │   └── SourceTooLarge       422 source_too_large
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

`message` is shown to clients. It never contains a path, a bucket name or credentials. `detail` is only
logged.
"""

import math
from http import HTTPStatus


class AppError(Exception):
    """Base class of all errors in this module. Subclasses set `status`, `code` and the default `message`."""

    status = 500
    code = "internal_error"
    message = "Internal server error. Please try again."
    retry_after: int | None = None
    """How many seconds the client should wait before a retry, sent as `Retry-After` (RFC 9110, 10.2.3)."""

    def __init__(self, message: str | None = None, *, detail: str = "") -> None:
        self.message = message or type(self).message
        self.detail = detail
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} [{self.detail}]" if self.detail else self.message

    @classmethod
    def from_status(cls, status: int, message: str) -> "AppError":
        """Return an error for an HTTP status for which this module has no subclass.

        The `code` is derived from the reason phrase of the status.
        """
        error = cls(message)
        error.status = status
        error.code = HTTPStatus(status).phrase.lower().replace(" ", "_").replace("-", "_")
        return error

    def body(self) -> dict[str, object]:
        """Return the fields of the JSON response. Every error has the same fields."""
        return {"success": False, "message": self.message, "code": self.code}

    def headers(self) -> dict[str, str]:
        """Return the headers to add to the response because of this error."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class ConfigError(AppError):
    """The settings are invalid. The message lists the name and value of every invalid setting."""

    code = "config_error"


class BadRequest(AppError):
    """The request is malformed. The message says what to send instead."""

    status = 400
    code = "bad_request"
    message = "The request could not be understood."


class InvalidKey(BadRequest):
    """An object key, name or folder does not follow the rules of `app.core.object_keys`."""

    code = "invalid_key"
    message = "That is not a valid image key."


class InvalidVariant(BadRequest):
    """The spec of a variant does not follow the rules of `app.core.variant_specs`."""

    code = "invalid_variant"
    message = "That is not a valid variant."


class VariantNotPermitted(BadRequest):
    """The variant is neither listed in the settings nor signed. The message says what is permitted."""

    code = "variant_not_permitted"
    message = "This variant is not permitted without a signature."


class KeyRequired(AppError):
    """The call needs an API key, but the request has none."""

    status = 401
    code = "key_required"
    message = "This call needs an API key."


class KeyRefused(AppError):
    """The request has an API key that is not in `API_KEYS`."""

    status = 403
    code = "key_refused"
    message = "That API key is not accepted."


class ScopeMissing(AppError):
    """The API key is valid but lacks the scope `scope`, which this call needs."""

    status = 403
    code = "scope_missing"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This API key lacks the scope '{scope}', which this call needs.")
        self.scope = scope


class SignatureRefused(AppError):
    """The signature of a URL is wrong, or has expired."""

    status = 403
    code = "signature_refused"
    message = "The signature of this URL is wrong, or has expired."


class NotFound(AppError):
    """The store has no object with this key."""

    status = 404
    code = "not_found"
    message = "There is no image with this key."


class ModelNotFound(AppError):
    """The request names a model other than the configured one."""

    status = 404
    code = "model_not_found"
    message = "This server does not have that model. GET /v1/models lists the available model."


class SlowClient(AppError):
    """The request body arrived too slowly, or the request was dropped to make room for waiting requests.

    See RFC 9110, 15.5.9.
    """

    status = 408
    code = "request_timeout"
    message = "The request body arrived too slowly. Send it again over a faster connection."


class NameTaken(AppError):
    """An image with this name exists, and the request does not allow overwriting it."""

    status = 409
    code = "name_taken"
    message = "An image with this name already exists. Choose another name, or send overwrite=true."


class IdempotencyKeyInUse(AppError):
    """Another request with the same Idempotency-Key is still in progress after the maximum wait."""

    status = 409
    code = "idempotency_key_in_use"
    message = "A request with this Idempotency-Key is still in progress. Retry it later."
    retry_after = 10


class PreconditionFailed(AppError):
    """The condition in If-Match or If-Unmodified-Since is false (RFC 9110, 13.1)."""

    status = 412
    code = "precondition_failed"
    message = "The image has changed. It is not the version that the request specifies."


class TooLarge(AppError):
    """The request body is larger than allowed."""

    status = 413
    code = "too_large"
    message = "The request body is too large."

    @classmethod
    def for_image(cls, limit: int) -> "TooLarge":
        """Return the error for an image that has more than `limit` bytes."""
        return cls(f"The image exceeds the limit of {limit} bytes.")


class UnsupportedImage(AppError):
    """The bytes are not an image in one of the allowed formats."""

    status = 415
    code = "unsupported_image"
    message = "Unsupported image format. Use PNG, JPEG, GIF, WebP or AVIF."


class UnsupportedEncoding(AppError):
    """The request body is compressed, which is not allowed, since its decompressed size is unknown.

    See RFC 9110, 15.5.16.
    """

    status = 415
    code = "unsupported_encoding"
    message = "Send the body without a Content-Encoding such as gzip."


class RangeNotSatisfiable(AppError):
    """The requested range lies outside the `size` bytes of the image (RFC 9110, 15.5.17)."""

    status = 416
    code = "range_not_satisfiable"
    message = "The image has no bytes in the requested range."

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def headers(self) -> dict[str, str]:
        """Return Content-Range with the image's size, so that the client can correct its range.

        See RFC 9110, 14.4.
        """
        return {"Content-Range": f"bytes */{self.size}"}


class UndecodableImage(AppError):
    """The bytes start like an image, but decoding fails before the end of the image."""

    status = 422
    code = "undecodable_image"
    message = "The image is damaged or incomplete and could not be decoded."


class TooManyPixels(UndecodableImage):
    """Width × height × frames, or the number of frames, exceeds the limit."""

    code = "too_many_pixels"
    message = "The image has too many pixels."


class VariantFailed(UndecodableImage):
    """The image may be fine, but this variant of it can't be made."""

    code = "variant_failed"
    message = "This variant of the image can't be made. Use a smaller size or a different format."


class SourceTooLarge(UndecodableImage):
    """The file of a stored image is too large to make variants of it."""

    code = "source_too_large"
    message = "The file of this image is too large to make variants of it."


class PromptRefused(AppError):
    """The generator refuses this prompt."""

    status = 422
    code = "prompt_refused"
    message = "The image model refused this prompt. Change the prompt."


class IdempotencyKeyReused(AppError):
    """The Idempotency-Key has already been used for a different request."""

    status = 422
    code = "idempotency_key_reused"
    message = "This Idempotency-Key was used for a different request. Use a new key for each request."


class GeneratorBusy(AppError):
    """The server is already generating the maximum number of images."""

    status = 429
    code = "generator_busy"
    message = "The server is already generating as many images as it can. Retry shortly."
    retry_after = 5


class RateLimited(AppError):
    """The client exceeded a rate limit and should wait for `retry_after` seconds."""

    status = 429
    code = "rate_limited"
    message = "Too many requests. Wait, then retry."

    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after


class Busy(AppError):
    """The server has reached a limit on concurrent work."""

    status = 503
    code = "busy"
    message = "The server is overloaded. Retry shortly."
    retry_after = 2


class CacheStuck(AppError):
    """A deleted or replaced image can't be removed from the cache, so the cache may keep serving it."""

    status = 503
    code = "cache_stuck"
    message = "The image could not be removed from the server's cache. Retry shortly."
    retry_after = 5


class CacheUnreadable(AppError):
    """The state of the cache is unknown because its directory or its index can't be read."""

    status = 503
    code = "cache_unreadable"
    message = "The cache can't be read. For now, images are served from the store."
    retry_after = 10


class StateUnavailable(AppError):
    """`STATE_DIR`, which holds the records of generations, can't be read or written."""

    status = 503
    code = "state_unavailable"
    message = "The server can't store its generation records. The server's log has the reason."
    retry_after = 30


class StoreError(AppError):
    """The store returned an invalid response."""

    status = 502
    code = "store_error"
    message = "The image store returned an invalid response."


class StoreRefused(StoreError):
    """The store denied the request: its credentials, permissions or settings are wrong."""

    code = "store_refused"
    message = "The image store denied the request. The server's log has the reason."


class StoreUnreachable(StoreError):
    """The store can't be reached, or it is overloaded."""

    status = 503
    code = "store_unreachable"
    message = "The image store is unreachable. Retry shortly."
    retry_after = 5


class StoreBusy(StoreUnreachable):
    """Too many requests are waiting for the store, or it has stopped responding."""

    code = "store_busy"
    message = "The image store is too slow. Retry shortly."


class StoreTimeout(StoreError):
    """The store did not respond before the deadline."""

    status = 504
    code = "store_timeout"
    message = "The image store did not respond in time. Retry shortly."
    retry_after = 5


class GeneratorError(AppError):
    """The generator failed, or returned something that is not an image."""

    status = 502
    code = "generator_error"
    message = "The image model returned no usable image. Retry shortly."


class GeneratorRefused(GeneratorError):
    """The provider denied the request because of the credentials, the quota or a retired model.

    A refused prompt raises `PromptRefused` instead.
    """

    code = "generator_refused"
    message = "The image model denied the request. The server's log has the reason."


class GeneratorUnreachable(GeneratorError):
    """The generator is unreachable or overloaded, so a retry may succeed.

    `wait` is how many seconds the provider asks clients to wait, or None if it does not say.
    """

    status = 503
    code = "generator_unreachable"
    message = "The image model is unreachable. Retry shortly."
    retry_after = 10

    def __init__(self, message: str | None = None, *, detail: str = "", wait: float | None = None) -> None:
        super().__init__(message, detail=detail)
        self.wait = wait
        if wait is not None:
            self.retry_after = math.ceil(wait)


class GeneratorTimeout(GeneratorError):
    """The generator did not finish before the deadline."""

    status = 504
    code = "generator_timeout"
    message = "The image model did not finish in time. Retry shortly."
