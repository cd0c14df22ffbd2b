"""gunicorn's logger, with our access log instead of gunicorn's."""

from datetime import timedelta
from typing import Any

from gunicorn.glogging import Logger

from app.observability.access_log import AccessLog
from app.server.refusals import Refusal


class RequestLogger(Logger):  # type: ignore[misc]
    """Logs each request to `request_log`, unless that is None. A server hook sets `request_log`.

    gunicorn creates the logger before the hooks run, and keeps it after a reload.
    """

    request_log: AccessLog | None = None

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        """Log a request after its response was sent, or after its client disconnected."""
        if self.request_log is not None and resp.status:
            # gunicorn does not count the bytes of files that the kernel sends.
            sent = resp.sent or (0 if resp._omits_body else resp.response_length or 0)
            self.request_log.log(environ, resp.status, int(sent), request_time.total_seconds())

    def refused(self, client: Any, refusal: Refusal) -> None:
        """Log a request that the server refused without calling the application."""
        if self.request_log is not None:
            address = client[0] if isinstance(client, tuple) and client else ""  # "" for a Unix socket
            environ = {"REQUEST_METHOD": "", "REMOTE_ADDR": address}
            self.request_log.log(environ, str(refusal.status), refusal.body_length, 0.0)
