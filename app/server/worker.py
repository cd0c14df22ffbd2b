"""The gunicorn worker, which is a process with an event loop and threads.

gunicorn's base class handles signals, sends heartbeats and loads the application. `EventLoop` does the rest.
A worker stops when it receives a signal, after `max_requests` requests, or when the arbiter has ended.
"""

import os
import resource
import time
from typing import Any

from gunicorn.workers.base import Worker

from app.components import EXTENSION, Components
from app.core.threads import ElasticThreadPool
from app.delivery.fast_path import LoopHooks
from app.server.event_loop import EventLoop
from app.server.exchanges import Exchanges

_RESERVED_FILES = 256
"""Number of open files that are reserved for the cache, the store's client, and logs."""

_FILES_PER_CONNECTION = 3
"""Number of open files that a request may need: its connection, the image, and a connection to the store."""

_MIN_CONNECTIONS = 8
"""Minimum number of connections. Threads can work only on a share of the connections, and a thread keeps a
connection for a moment after the client got the response. With fewer connections, a client that opens a new
connection for each request could be rejected."""


class ImageWorker(Worker):  # type: ignore[misc]
    """Runs any WSGI application. If the application has `LoopHooks`, the event loop answers some requests.

    This worker does not support TLS or the PROXY protocol. Use a proxy in front of it if you need them.
    """

    _has_warned_of_heartbeat = False

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Raise `RuntimeError` if gunicorn is configured for TLS or the PROXY protocol."""
        if cfg.is_ssl or cfg.proxy_protocol != "off":
            raise RuntimeError(
                "This worker supports neither TLS nor the PROXY protocol. Put a proxy in front of it, or "
                "start gunicorn with --worker-class gthread."
            )

    def init_process(self) -> None:
        """Raise the limit on open files as far as allowed, and derive the number of connections from it."""
        limit = _raise_limit_on_files()
        wanted = self.cfg.worker_connections
        fitting = wanted if limit < 0 else (limit - _RESERVED_FILES) // _FILES_PER_CONNECTION
        self._capacity = max(_MIN_CONNECTIONS, min(wanted, fitting))
        if self._capacity < wanted:
            self.log.warning(
                "A worker can have only %d connections instead of %d, since the limit on open files is %d. "
                "Raise the limit with ulimit -Hn, or with LimitNOFILE= of systemd.",
                self._capacity,
                wanted,
                limit,
            )
        super().init_process()

    def run(self) -> None:
        """Run the event loop until the worker is stopped.

        After that, continue until all connections have ended or `graceful_timeout` has passed.
        """
        components: Components | None = getattr(self.wsgi, "extensions", {}).get(EXTENSION)
        hooks = LoopHooks() if components is None else components.loop_hooks
        pool = ElasticThreadPool(self.cfg.threads)
        loop = EventLoop(
            self.sockets,
            Exchanges(self.wsgi, self.cfg, self.log, hooks, self._may_keep_alive),
            pool,
            hooks,
            self.log,
            capacity=self._capacity,
            keepalive=self.cfg.keepalive,
            wake_pipe=self.PIPE,
        )
        try:
            while self.alive and self.ppid == os.getppid():
                self._run_once(loop, hooks)
            loop.stop()
            deadline = time.monotonic() + self.cfg.graceful_timeout
            while len(loop) and time.monotonic() < deadline:
                self._run_once(loop, hooks)
            loop.close()
            pool.shutdown(wait=False)
        finally:
            hooks.flush(at_once=True)

    def notify(self) -> None:
        """Send the arbiter a heartbeat. If the system does not allow this, warn once and continue.

        A heartbeat sets the mtime of a file to the monotonic clock, and the arbiter compares the mtime with
        the clock. Without heartbeats, the mtime is the creation time of the file, which is far ahead of that
        clock. So the arbiter would never replace a worker that hangs.
        """
        try:
            super().notify()
        except OSError as exc:
            if not self._has_warned_of_heartbeat:
                self._has_warned_of_heartbeat = True
                self.log.warning(
                    "The system does not allow utime(2) (%s), so a worker that hangs is not replaced.",
                    exc.strerror,
                )

    def _run_once(self, loop: EventLoop, hooks: LoopHooks) -> None:
        if loop.run_once():
            self.notify()
            hooks.flush()

    def _may_keep_alive(self) -> bool:
        """Count a request, and return whether its connection can be used for another request."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        return bool(self.alive and self.cfg.keepalive)


def _raise_limit_on_files() -> int:
    """Raise the soft limit on open files to the hard limit. Return the limit, or -1 if it is unknown."""
    limit = -1
    try:
        limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return limit
    return hard
