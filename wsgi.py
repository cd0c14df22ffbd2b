"""The entry point of WSGI servers: `gunicorn wsgi:app`, `flask run`."""

import logging
import os

from dotenv import load_dotenv

from app import create_app
from app.config import Config

load_dotenv()
config = Config.from_env(os.environ)
logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
app = create_app(config)
