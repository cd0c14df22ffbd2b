"""The entry point for WSGI servers, such as `gunicorn wsgi:app` and `flask run`."""

import os
import sys

from app import create_app
from app.config.env_file import is_settings_file_loaded, load_settings_file, restart_flask_without_dotenv
from app.config.settings import Config
from app.core.errors import ConfigError
from app.observability.logging import configure_logging
from app.ops.mistyped_settings import log_mistyped_settings

GUNICORN_BOOT_ERROR = 3
"""The exit status of a worker that makes gunicorn stop, instead of restarting the worker forever."""

try:
    restart_flask_without_dotenv()
    is_gunicorn = is_settings_file_loaded()  # gunicorn.conf.py loads the file once for all workers
    settings_file = "" if is_gunicorn else load_settings_file()
    config = Config.from_env(os.environ)
    configure_logging(config.log_level, config.log_format)
    if not is_gunicorn:
        # Without gunicorn.conf.py, gunicorn would apply SCRIPT_NAME too, and return 500 for paths outside it.
        os.environ.pop("SCRIPT_NAME", None)
        log_mistyped_settings(settings_file)
    app = create_app(config)
except ConfigError as exc:
    sys.stderr.write(f"{exc}\n")
    sys.exit(GUNICORN_BOOT_ERROR)
