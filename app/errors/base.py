"""The root of the tree, and the one error that is raised only at start."""


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
