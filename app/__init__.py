"""S3 Image Server: upload or generate images, keep them in S3, serve them from a bounded disk cache."""

import os

from flask import Flask

from app.api import register_api
from app.api.access import Access
from app.api.parts import Parts
from app.cache import DiskCache
from app.cli import register_commands
from app.config import Config
from app.delivery import Delivery
from app.generators.base import BaseGenerator
from app.generators.builtin import BuiltinGenerator
from app.imaging import ImageLimits
from app.links import ImageLinks
from app.plugins import find_class
from app.service import ImageService
from app.stores.base import BaseStore
from app.stores.local import LocalStore
from app.stores.s3 import S3Store
from app.web import blueprint as web_blueprint

STORES: dict[str, type[BaseStore]] = {"local": LocalStore, "s3": S3Store}
GENERATORS: dict[str, type[BaseGenerator]] = {"builtin": BuiltinGenerator}


def find_classes(config: Config) -> tuple[type[BaseStore], type[BaseGenerator]]:
    """What `STORE` and `GENERATOR` name; raises `ConfigError`."""
    return (
        find_class("STORE", config.store, STORES, BaseStore),
        find_class("GENERATOR", config.generator, GENERATORS, BaseGenerator),
    )


def create_app(config: Config | None = None) -> Flask:
    """Build the parts from the settings and wire them; raises `ConfigError` where they can't be used."""
    config = config or Config.from_env(os.environ)
    store_class, generator_class = find_classes(config)
    store, generator = store_class.from_config(config), generator_class.from_config(config)
    cache = DiskCache(
        config.cache_dir,
        config.cache_max_bytes,
        ttl=config.cache_ttl,
        stale_if_error=config.cache_stale_if_error,
        negative_ttl=config.cache_negative_ttl,
    )
    limits = ImageLimits(
        config.allowed_formats, config.max_image_pixels, config.max_image_frames, config.strip_metadata
    )
    links = ImageLinks(store, config.image_urls, config.public_base_url)
    service = ImageService(
        store, cache, generator, limits, max_upload_bytes=config.max_upload_bytes, url_of=links.url_of
    )
    flask = Flask(__name__, static_folder=None)
    parts = Parts(service, store, cache, Access(config.api_keys))
    register_api(flask, parts, max_upload_bytes=config.max_upload_bytes)
    flask.config["GENERATOR_TIMEOUT"] = config.generator_timeout  # so long the page waits, too
    flask.register_blueprint(web_blueprint)
    register_commands(flask)
    flask.wsgi_app = Delivery(flask.wsgi_app, cache)  # type: ignore[method-assign]
    return flask
