"""Every error the service raises on purpose, with what HTTP says of it.

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
"""

from app.errors.base import AppError, ConfigError
from app.errors.requests import (
    BadRequest,
    GeneratorBusy,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidKey,
    KeyRefused,
    KeyRequired,
    ModelNotFound,
    NameTaken,
    NotFound,
    PreconditionFailed,
    PromptRefused,
    RangeNotSatisfiable,
    RateLimited,
    ScopeMissing,
    SlowClient,
    TooLarge,
    TooManyPixels,
    UndecodableImage,
    UnsupportedEncoding,
    UnsupportedImage,
)
from app.errors.server import (
    Busy,
    CacheStuck,
    CacheUnreadable,
    GeneratorError,
    GeneratorRefused,
    GeneratorTimeout,
    GeneratorUnreachable,
    StateUnavailable,
    StoreBusy,
    StoreError,
    StoreRefused,
    StoreTimeout,
    StoreUnreachable,
)

__all__ = [
    "AppError",
    "BadRequest",
    "Busy",
    "CacheStuck",
    "CacheUnreadable",
    "ConfigError",
    "GeneratorBusy",
    "GeneratorError",
    "GeneratorRefused",
    "GeneratorTimeout",
    "GeneratorUnreachable",
    "IdempotencyKeyInUse",
    "IdempotencyKeyReused",
    "InvalidKey",
    "KeyRefused",
    "KeyRequired",
    "ModelNotFound",
    "NameTaken",
    "NotFound",
    "PreconditionFailed",
    "PromptRefused",
    "RangeNotSatisfiable",
    "RateLimited",
    "ScopeMissing",
    "SlowClient",
    "StateUnavailable",
    "StoreBusy",
    "StoreError",
    "StoreRefused",
    "StoreTimeout",
    "StoreUnreachable",
    "TooLarge",
    "TooManyPixels",
    "UndecodableImage",
    "UnsupportedEncoding",
    "UnsupportedImage",
]
