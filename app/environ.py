"""What a request's WSGI environment carries from one front to the next, and to the access log."""

REQUEST_ID = "s3image.request_id"
"""The request's id."""

KEY_NAME = "s3image.key_name"
"""The name of the API key that was checked."""

IMAGE = "s3image.image"
"""The key of the image that the request is about."""

CACHE = "s3image.cache"
"""The cache's result: a value of `CacheStatus`."""

BEGAN = "s3image.began"
"""When the request came to the first front, by `time.perf_counter`."""

FAILURE = "s3image.failure"
"""The exception that a front leaves to the application to answer."""
