"""The server hooks for gunicorn (https://docs.gunicorn.org/en/stable/settings.html#server-hooks).

`gunicorn.conf.py` creates a `ServerHooks` from the settings and passes its methods to gunicorn. A reload runs
that file again and creates new `ServerHooks`. State that must survive a reload is therefore stored in
gunicorn's objects: the arbiter holds the shared counters, and each worker object holds the number and the CPU
core of its worker.
"""

import ctypes
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from app.components import EXTENSION, Components
from app.config.settings import Config
from app.core.system import usable_cores
from app.observability.access_log import AccessLog
from app.observability.multiprocess import SharedDirectory, free_number
from app.server.listeners import choose_listeners, describe_listener, update_listeners
from app.server.logger import RequestLogger
from app.server.reloading import guard_reload

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter


class ServerHooks:
    """The hooks for `settings`. `settings_file` is the name of the settings file for messages.

    `log_mistyped_settings` is called with this name whenever settings take effect.
    """

    def __init__(
        self, settings: Config, settings_file: str, log_mistyped_settings: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._settings_file = settings_file
        self._log_mistyped_settings = log_mistyped_settings
        self._can_pin = False

    def on_starting(self, server: "Arbiter") -> None:
        """Choose how to listen, and prepare reloads and metrics.

        If the server can't listen, log one line with the reason and exit. By itself, gunicorn would retry for
        several seconds.
        """
        choose_listeners(server, (self._settings.host.lower(), self._settings.port))
        guard_reload(server)
        self._apply_settings(server)
        server.shared_metrics = SharedDirectory(server.cfg.uid, server.cfg.gid)

    def on_reload(self, server: "Arbiter") -> None:
        """Apply the new settings before new workers are forked."""
        update_listeners(server)
        self._apply_settings(server)
        self.when_ready(server)

    def when_ready(self, server: "Arbiter") -> None:
        """Log the name of the settings file, and the addresses at which clients can reach the server."""
        server.log.info("Settings file: %s", self._settings_file)
        self._log_mistyped_settings(self._settings_file)
        for listener in server.LISTENERS:
            server.log.info("S3 Image Server: %s", describe_listener(listener))

    def on_exit(self, server: "Arbiter") -> None:
        """Remove the files of the counters."""
        if hasattr(server, "shared_metrics"):
            server.shared_metrics.remove()

    def pre_fork(self, server: "Arbiter", worker: Any) -> None:
        """Give the worker a number and a core.

        A worker that replaces a dead one gets the dead worker's number and core.
        """
        others = server.WORKERS.values()
        worker.number = free_number({other.number for other in others})
        cores = usable_cores() if self._can_pin else []
        worker.core = None
        if len(cores) >= self._settings.web_concurrency:
            used = Counter(other.core for other in others)
            worker.core = min(cores, key=lambda core: used[core])

    def post_fork(self, server: "Arbiter", worker: Any) -> None:
        """Set up the worker's counters, pin the worker to its core, and make it return freed memory.

        Moving the threads of a process between cores would cost more CPU time than a request does.
        """
        server.shared_metrics.number = worker.number
        if worker.core is not None:
            with suppress(OSError):  # the core is no longer available
                os.sched_setaffinity(0, {worker.core})
        _return_freed_memory()

    def child_exit(self, server: "Arbiter", worker: Any) -> None:
        """Remove what a worker that has ended reported about its present work."""
        server.shared_metrics.forget_state(worker.number)

    def post_worker_init(self, worker: Any) -> None:
        """Remove from the cache what other settings left there: images of a different store, and variants
        that are not listed any more. This runs before the first request.
        """
        # gunicorn would apply SCRIPT_NAME too, and return 500 for paths without the prefix, such as those of
        # health checks. Only workers remove it. With --preload, the arbiter reads the settings again at a
        # reload.
        os.environ.pop("SCRIPT_NAME", None)
        components: Components | None = getattr(worker.wsgi, "extensions", {}).get(EXTENSION)
        if components is not None:
            components.cache.bind_to_store(components.store.identity())
            components.cache.bind_to_variants(components.variant_rules.definitions())

    def _apply_settings(self, server: "Arbiter") -> None:
        settings = self._settings
        is_logging = settings.access_log and settings.log_level in ("DEBUG", "INFO")
        if isinstance(server.log, RequestLogger):
            server.log.request_log = (
                AccessLog(settings.log_format, settings.trusted_proxies) if is_logging else None
            )
        self._can_pin = settings.pin_workers and _can_pin_workers(server.log)


def _can_pin_workers(log: Any) -> bool:
    """Return whether processes are allowed to choose their core.

    The seccomp filters of some containers forbid it. If this is not allowed, log one warning here, rather
    than one in each worker.
    """
    if not hasattr(os, "sched_setaffinity"):
        return False
    try:
        os.sched_setaffinity(0, os.sched_getaffinity(0))
    except OSError as exc:
        log.warning("Workers are not pinned to cores, since the system does not allow it: %s", exc.strerror)
        return False
    return True


def _return_freed_memory() -> None:
    """Make glibc map each large block separately, so that the system gets the memory of freed pixels back."""
    m_mmap_threshold, mebibyte = -3, 1 << 20  # mallopt(3)
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(m_mmap_threshold, mebibyte)
