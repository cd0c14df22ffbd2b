"""The mount point, which is the path below which clients reach the application, such as `/images`."""

from collections.abc import Container, Iterable
from typing import TYPE_CHECKING

from app.config.fields import parse_prefix

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


class MountPoint:
    """Middleware that moves the mount point from the path to `SCRIPT_NAME` (PEP 3333).

    `script_name` is the setting. If the setting is empty, the mount point is the value that the outermost of
    `hops` proxies added to `X-Forwarded-Prefix`. An invalid value is ignored. The proxy may or may not have
    removed the prefix from the path.
    """

    def __init__(
        self, application: "WSGIApplication", script_name: str, hops: int, own_paths: Container[str]
    ) -> None:
        """Create the middleware. `own_paths` contains the first segments of application paths, like `api`."""
        self._application = application
        self._script_name = script_name
        self._hops = hops
        self._own_paths = own_paths

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Move the prefix from `PATH_INFO` to `SCRIPT_NAME`, and pass the request on."""
        if self._script_name:
            self._move(environ, self._script_name)
        elif "HTTP_X_FORWARDED_PREFIX" in environ:
            self._apply_forwarded_prefix(environ)
        return self._application(environ, start_response)

    def _apply_forwarded_prefix(self, environ: "WSGIEnvironment") -> None:
        values = environ["HTTP_X_FORWARDED_PREFIX"].split(",")
        prefix = parse_prefix(values[-self._hops]) if len(values) >= self._hops else None
        if not prefix:
            return
        if environ["PATH_INFO"].rstrip("/") == prefix and _first_segment(prefix) in self._own_paths:
            # Most proxies that send this header have removed the prefix, so this is an application path.
            environ["SCRIPT_NAME"] = prefix
        else:
            self._move(environ, prefix)

    def _move(self, environ: "WSGIEnvironment", prefix: str) -> None:
        """Set `SCRIPT_NAME` to the prefix, and remove the prefix from the path.

        If the prefix looks like an application path, such as `/api`, remove it only if an application path
        follows: from `/api/api/images`, but not from `/api/images`.
        """
        rest = environ["PATH_INFO"].removeprefix(prefix)
        is_below = rest != environ["PATH_INFO"] and rest[:1] in ("", "/")
        if is_below and (
            _first_segment(rest) in self._own_paths or _first_segment(prefix) not in self._own_paths
        ):
            environ["PATH_INFO"] = rest
        environ["SCRIPT_NAME"] = prefix


def _first_segment(path: str) -> str:
    return path[1:].partition("/")[0]
