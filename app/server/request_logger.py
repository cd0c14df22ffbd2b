"""gunicorn's logger, with the access log."""

from datetime import timedelta
from typing import Any, ClassVar

from gunicorn.glogging import Logger

from app.logs import AccessLog
from app.server.refusals import Refusal


class RequestLogger(Logger):  # type: ignore[misc]
    """gunicorn's logger. Logs each request to `requests`; if that is None, to nothing."""

    requests: ClassVar[AccessLog | None] = None

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        """Log a request whose answer has been sent, or whose client has gone."""
        if self.requests is not None and resp.status:
            self.requests.log(environ, resp.status, _body_bytes(resp), request_time.total_seconds())

    def refused(self, client: Any, refusal: Refusal) -> None:
        """Log a request that never reached the application."""
        if self.requests is not None:
            address = client[0] if isinstance(client, tuple) and client else ""  # "" at a Unix socket
            environ = {"REQUEST_METHOD": "", "REMOTE_ADDR": address}
            self.requests.log(environ, str(refusal.status), refusal.body_length, 0.0)


def _body_bytes(resp: Any) -> int:
    """Return the bytes of the body. gunicorn counts none of a file that the kernel sends."""
    return int(resp.sent or (0 if resp._omits_body else resp.response_length or 0))
