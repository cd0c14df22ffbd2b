"""The entry point of WSGI servers: `gunicorn wsgi:app`, `flask run`."""

import os
import sys

from dotenv import load_dotenv

from app import create_app
from app.config import Config
from app.errors import ConfigError
from app.logs import configure_logging

GUNICORN_BOOT_ERROR = 3
"""The exit status at which gunicorn stops, instead of starting the worker again for ever."""

load_dotenv()
try:
    config = Config.from_env(os.environ)
    configure_logging(config.log_level, config.log_format)
    app = create_app(config)
except ConfigError as exc:
    sys.stderr.write(f"{exc}\n")
    sys.exit(GUNICORN_BOOT_ERROR)
