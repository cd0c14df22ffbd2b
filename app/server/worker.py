"""The gunicorn worker: a process with an event loop and threads.

gunicorn's base class handles signals, the heartbeat and the loading of the application; `EventLoop` does the
work. Only a signal, `max_requests` or the end of the arbiter stops a worker.
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
"""Open files kept for everything but clients: the cache, the store's client, logs."""

_FILES_PER_CONNECTION = 3
"""Open files that a client's request may need: its connection, the image, a connection to the store."""

_MIN_CONNECTIONS = 8
"""Only a share of the connections may be with threads, and a thread holds one for a moment after the client
has its response. With fewer connections, a client that opens one for each request could be refused."""


class ImageWorker(Worker):  # type: ignore[misc]
    """Runs any WSGI application. The event loop itself answers what the application's `LoopHooks` name.

    It speaks neither TLS nor the PROXY protocol: those are left to a proxy in front.
    """

    _has_warned_of_heartbeat = False

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Raise `RuntimeError` if gunicorn is configured for TLS or the PROXY protocol."""
        if cfg.is_ssl or cfg.proxy_protocol != "off":
            raise RuntimeError(
                "This worker speaks neither TLS nor the PROXY protocol. Put a proxy in front of it, or start "
                "gunicorn with --worker-class gthread."
            )

    def init_process(self) -> None:
        """Raise the limit on open files as far as allowed, and fit the number of connections to it."""
        limit = _raise_limit_on_files()
        wanted = self.cfg.worker_connections
        fitting = wanted if limit < 0 else (limit - _RESERVED_FILES) // _FILES_PER_CONNECTION
        self._capacity = max(_MIN_CONNECTIONS, min(wanted, fitting))
        if self._capacity < wanted:
            self.log.warning(
                "The limit on open files, %d, lets a worker have %d connections instead of %d. "
                "Raise it: ulimit -Hn, or LimitNOFILE= of systemd.",
                limit,
                self._capacity,
                wanted,
            )
        super().init_process()

    def run(self) -> None:
        """Serve until stopped, then until all connections have ended or `graceful_timeout` has passed."""
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
        """Tell the arbiter that this worker is alive. If the system refuses that, warn once and go on.

        The arbiter compares the modification time of a file, which a heartbeat sets, to the monotonic clock.
        Without heartbeats it finds the time of creation, far in the future of that clock, and never replaces
        a worker that hangs.
        """
        try:
            super().notify()
        except OSError as exc:
            if not self._has_warned_of_heartbeat:
                self._has_warned_of_heartbeat = True
                self.log.warning(
                    "The system refuses utime(2) (%s): a worker that hangs is not replaced.", exc.strerror
                )

    def _run_once(self, loop: EventLoop, hooks: LoopHooks) -> None:
        if loop.run_once():
            self.notify()
            hooks.flush()

    def _may_keep_alive(self) -> bool:
        """Count a request, and return whether its connection may be used for another."""
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        return bool(self.alive and self.cfg.keepalive)


def _raise_limit_on_files() -> int:
    """Raise the soft limit on open files to the hard one. Return the limit, -1 if the system doesn't say."""
    limit = -1
    try:
        limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return limit
    return hard
