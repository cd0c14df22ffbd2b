"""How gunicorn runs the server; `gunicorn wsgi:app` reads this file from the working directory."""

import ctypes
import os
import sys
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from app.components import EXTENSION, Components, find_classes
from app.config.env_file import load_settings_file
from app.config.settings import Config
from app.core.errors import ConfigError
from app.core.system import usable_cores
from app.observability.access_log import AccessLog
from app.observability.logging import logging_config
from app.observability.multiprocess import SharedDirectory, free_number, take_number
from app.ops.mistyped_settings import log_mistyped_settings
from app.server.listeners import bind_address, choose_listeners, rechoose_listeners, where
from app.server.reloading import guard_reload
from app.server.worker import RequestLogger

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter

try:
    settings_file = load_settings_file()
    settings = Config.from_env(os.environ)
    find_classes(settings)
except ConfigError as exc:
    sys.exit(str(exc))

bind = bind_address(settings.host, settings.port)
workers = settings.web_concurrency
threads = settings.threads
worker_class = "app.server.worker.ImageWorker"
timeout = settings.generator_timeout + 30
graceful_timeout = 30
keepalive = 75
secure_scheme_headers: dict[str, str] = {}  # proxies are believed by TRUSTED_PROXIES alone
forwarder_headers = ""  # nobody but the server says where the application is mounted
limit_request_line = 8190  # a long URL shall reach our own 4xx
reuse_port = True  # if app.server.listeners finds that it can be
control_socket_disable = True  # it wants a writable home directory, which containers lack
loglevel = settings.log_level.lower()
logconfig_dict = logging_config(settings.log_level, settings.log_format)


logger_class = RequestLogger
RequestLogger.requests = (
    AccessLog(settings.log_format, settings.trusted_proxies)
    if settings.access_log and settings.log_level in ("DEBUG", "INFO")
    else None
)


def on_starting(server: "Arbiter") -> None:
    """Report in one line what keeps it from listening: gunicorn itself would try for some seconds."""
    choose_listeners(server, (settings.host.lower(), settings.port))
    guard_reload(server)
    _see_whether_cores_can_be_chosen(server.log)
    server.metrics = SharedDirectory(server.cfg.uid, server.cfg.gid)


def on_reload(server: "Arbiter") -> None:
    """Go on with the new settings."""
    rechoose_listeners(server)
    _see_whether_cores_can_be_chosen(server.log)
    when_ready(server)


can_pin = True


def _see_whether_cores_can_be_chosen(log: Any) -> None:
    """Warn once, not in each worker, if the system refuses it: seccomp filters do, as of some containers."""
    global can_pin
    try:
        can_pin = settings.pin_workers and hasattr(os, "sched_setaffinity")
        if can_pin:
            os.sched_setaffinity(0, os.sched_getaffinity(0))
    except OSError as exc:
        can_pin = False
        log.warning("Workers are not tied to cores, the system refuses it: %s", exc.strerror)


def on_exit(server: "Arbiter") -> None:
    """The counters end with the server."""
    if hasattr(server, "metrics"):
        server.metrics.remove()


def pre_fork(server: "Arbiter", worker: Any) -> None:
    """A worker that replaces a dead one gets its number and its core."""
    worker.number = free_number({other.number for other in server.WORKERS.values()})
    _choose_core(server, worker)


def _choose_core(server: "Arbiter", worker: Any) -> None:
    """The one on which the fewest workers are."""
    cores = usable_cores() if can_pin else []
    if len(cores) >= settings.web_concurrency:
        taken = Counter(getattr(other, "core", None) for other in server.WORKERS.values())
        worker.core = min(cores, key=lambda core: taken[core])


def post_fork(server: "Arbiter", worker: Any) -> None:
    """Threads of one process bouncing between cores cost more than a request does."""
    take_number(worker.number)
    if getattr(worker, "core", None) is not None:
        with suppress(OSError):  # the core was taken away meanwhile
            os.sched_setaffinity(0, {worker.core})
    _give_freed_memory_back()


def post_worker_init(worker: Any) -> None:
    """Before the first request: images of another store must not be served as this one's."""
    # gunicorn would obey it as well, and answer 500 to paths without it, such as those of health checks. It
    # is removed in workers only: with --preload the first process reads the settings again at a reload.
    os.environ.pop("SCRIPT_NAME", None)
    components: Components | None = getattr(worker.wsgi, "extensions", {}).get(EXTENSION)
    if components is not None:
        components.cache.bind_to_store(components.store.identity())


def _give_freed_memory_back() -> None:
    """Let glibc map each large block by itself: freed pixels would stay in the heaps of the threads."""
    m_mmap_threshold, mebibyte = -3, 1 << 20  # mallopt(3)
    with suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(m_mmap_threshold, mebibyte)


def when_ready(server: "Arbiter") -> None:
    """Say where to look, and where the settings come from."""
    server.log.info("Settings file: %s", settings_file)
    log_mistyped_settings(settings_file)
    for listener in server.LISTENERS:
        server.log.info("S3 Image Server: %s", where(listener))
