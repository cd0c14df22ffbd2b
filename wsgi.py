"""The entry point of WSGI servers: `gunicorn wsgi:app`, `flask run`."""

import logging
import os
import sys

from dotenv import load_dotenv

from app import create_app
from app.config import Config
from app.errors import ConfigError

GUNICORN_BOOT_ERROR = 3
"""The exit status at which gunicorn stops, instead of starting the worker again for ever."""

load_dotenv()
try:
    config = Config.from_env(os.environ)
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = create_app(config)
except ConfigError as exc:
    sys.stderr.write(f"{exc}\n")
    sys.exit(GUNICORN_BOOT_ERROR)
