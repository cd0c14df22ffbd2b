"""The settings of gunicorn. It reads this file from the working directory when it starts or reloads."""

import os
import sys

from app.components import find_classes
from app.config.env_file import load_settings_file
from app.config.settings import Config
from app.core.errors import ConfigError
from app.observability.logging import logging_config
from app.ops.mistyped_settings import log_mistyped_settings
from app.server.hooks import ServerHooks
from app.server.listeners import bind_address
from app.server.logger import RequestLogger

try:
    settings_file = load_settings_file()
    settings = Config.from_env(os.environ)
    find_classes(settings)
except ConfigError as exc:
    sys.exit(str(exc))

bind = bind_address(settings.host, settings.port)
reuse_port = True  # app.server.listeners decides whether each worker gets its own listener
workers = settings.web_concurrency
threads = settings.threads
worker_class = "app.server.worker.ImageWorker"
timeout = settings.generator_timeout + 30
graceful_timeout = 30
keepalive = 75
limit_request_line = 8190  # so that a long URL reaches the application, which sends its own 4xx response
secure_scheme_headers: dict[str, str] = {}  # only TRUSTED_PROXIES decides which proxies are trusted
forwarder_headers = ""  # only the settings of this server decide where the application is mounted
control_socket_disable = True  # the socket needs a writable home directory, which containers don't have

loglevel = settings.log_level.lower()
logconfig_dict = logging_config(settings.log_level, settings.log_format)
logger_class = RequestLogger

_hooks = ServerHooks(settings, settings_file, log_mistyped_settings)
on_starting = _hooks.on_starting
on_reload = _hooks.on_reload
when_ready = _hooks.when_ready
on_exit = _hooks.on_exit
pre_fork = _hooks.pre_fork
post_fork = _hooks.post_fork
post_worker_init = _hooks.post_worker_init
child_exit = _hooks.child_exit
