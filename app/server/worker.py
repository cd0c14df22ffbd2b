"""The gunicorn worker: a process with an event loop and threads.

The base class handles signals, the arbiter's heartbeat and the application; `EventLoop` does the work. Only
signals, `max_requests` and the arbiter's end stop a worker.

gunicorn's logger, with the access log.
"""

import os
import resource
import time
from datetime import timedelta
from typing import Any, ClassVar

from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from app.components import EXTENSION, Components
from app.core.thread_pool import ElasticThreadPool
from app.delivery.fast_path import LoopHooks
from app.observability.access_log import AccessLog
from app.server.event_loop import EventLoop
from app.server.exchanges import Exchanges
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


_OTHER_FILES = 256
"""Open files kept for everything except clients: the cache, the store's client, logs."""

_FEWEST_CONNECTIONS = 8
"""A thread holds a connection for a moment after its client has the answer. Only a part of the connections
may be with threads, so with fewer than these a client that connects for each request could be refused."""

_FILES_EACH = 3
"""Open files that a client's request may take: its connection, the image, a connection to the store."""


class ImageWorker(Worker):  # type: ignore[misc]
    """Runs any WSGI application. If the application has `LoopHooks`, the loop answers some requests itself.

    TLS and the PROXY protocol are left to a proxy in front.
    """

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Raise RuntimeError if gunicorn's settings ask for TLS or the PROXY protocol."""
        if cfg.is_ssl or cfg.proxy_protocol != "off":
            raise RuntimeError(
                "This worker speaks neither TLS nor the PROXY protocol. Put a proxy in front of it, or start "
                "gunicorn with --worker-class gthread."
            )

    _is_silent = False

    def init_process(self) -> None:
        """Raise the limit on open files to the system's, and lower the number of connections to fit it."""
        most = _raise_limit_on_files()
        wanted = self.cfg.worker_connections
        fitting = wanted if most < 0 else (most - _OTHER_FILES) // _FILES_EACH
        self._capacity = max(_FEWEST_CONNECTIONS, min(wanted, fitting))
        if self._capacity < wanted:
            self.log.warning(
                "The limit on open files, %d, lets a worker have %d connections instead of %d. "
                "Raise it: ulimit -Hn, or LimitNOFILE= of systemd.",
                most,
                self._capacity,
                wanted,
            )
        super().init_process()

    def run(self) -> None:
        """Serve until stopped, then until all connections have ended or `graceful_timeout` is over."""
        components: Components | None = getattr(self.wsgi, "extensions", {}).get(EXTENSION)
        hooks = LoopHooks() if components is None else components.loop_hooks
        pool = ElasticThreadPool(self.cfg.threads)
        loop = EventLoop(
            self.sockets,
            Exchanges(self.wsgi, self.cfg, self.log, hooks, self._may_go_on),
            pool,
            hooks,
            self.log,
            capacity=self._capacity,
            keepalive=self.cfg.keepalive,
            wake=self.PIPE,
        )
        try:
            while self.alive and self.ppid == os.getppid():
                self._turn(loop, hooks)
            loop.stop()
            deadline = time.monotonic() + self.cfg.graceful_timeout
            while len(loop) and time.monotonic() < deadline:
                self._turn(loop, hooks)
            loop.close()
            pool.shutdown(wait=False)
        finally:
            hooks.flush(at_once=True)

    def notify(self) -> None:
        """Show the arbiter that this worker is alive; if the system refuses that, go on all the same.

        The arbiter then takes the time at which the file was made for a heartbeat in the future, so that it
        ends no worker that hangs.
        """
        try:
            super().notify()
        except OSError as exc:
            if not self._is_silent:
                self._is_silent = True
                self.log.warning(
                    "The system refuses utime(2) (%s): a worker that hangs is not replaced.", exc.strerror
                )

    def _turn(self, loop: EventLoop, hooks: LoopHooks) -> None:
        if loop.turn():
            self.notify()
            hooks.flush()

    def _may_go_on(self) -> bool:
        """Count a request, and return whether its connection may be used for another."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        return bool(self.alive and self.cfg.keepalive)


def _raise_limit_on_files() -> int:
    """Raise the limit on open files as far as the system lets us; return it, -1 if there is none to know."""
    most = -1
    try:
        most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return most
    return hard
