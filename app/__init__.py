"""S3 Image Server: upload or generate images, keep them in S3, serve them from a bounded disk cache."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from app.api import register_api
from app.api.auth import Access
from app.api.hosts import Hosts
from app.api.parts import Parts
from app.api.rate_limits import RateLimits
from app.cache.disk_cache import DiskCache
from app.config.plugins import find_class
from app.config.settings import Config
from app.core.limiters import STORE_CALLS_PER_THREAD, Bulkhead, DecodeLimiter
from app.core.request_context import RequestIds
from app.delivery.cors import Cors
from app.delivery.fast_path import FastPath, LoopHooks
from app.delivery.mount_point import MountPoint
from app.delivery.request_body import RequestBodyGuard
from app.generators.base import BaseGenerator
from app.generators.builtin import BuiltinGenerator
from app.imaging.survey import ImageLimits
from app.observability.metrics import MeteredGenerator, MeteredStore, Metrics
from app.ops.cli import register_commands
from app.services.drawing import GeneratorRunner
from app.services.generation import GenerationService
from app.services.images import ImageService
from app.services.readiness import ReadinessCheck
from app.services.urls import ImageUrls
from app.stores.base import BaseStore
from app.stores.local import LocalStore
from app.stores.s3.store import S3Store
from app.web import ABSOLUTE
from app.web import blueprint as web_blueprint

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

DECODE_PATIENCE = 10.0
"""Seconds that an image waits for others to be decoded; it holds one of the worker's places meanwhile."""

STORES: dict[str, type[BaseStore]] = {"local": LocalStore, "s3": S3Store}
GENERATORS: dict[str, type[BaseGenerator] | str] = {
    "builtin": BuiltinGenerator,
    "bedrock": "app.generators.bedrock:BedrockGenerator",
    "openai": "app.generators.openai:OpenAIGenerator",  # a second and 25 MiB to import
}


def find_classes(config: Config) -> tuple[type[BaseStore], type[BaseGenerator]]:
    """What `STORE` and `GENERATOR` name; raises `ConfigError`."""
    return (
        find_class("STORE", config.store, STORES, BaseStore),
        find_class("GENERATOR", config.generator, GENERATORS, BaseGenerator),
    )


def create_app(config: Config | None = None) -> Flask:
    """Build the parts from the settings and wire them; raises `ConfigError` where they can't be used."""
    config = config or Config.from_env(os.environ)
    flask = Flask(__name__, static_folder=None)
    parts = _parts(flask, config)
    register_api(flask, parts, max_upload_bytes=config.max_upload_bytes)
    flask.config["GENERATOR_TIMEOUT"] = config.generator_timeout  # so long the page waits, too
    flask.config["MAX_UPLOAD_BYTES"] = config.max_upload_bytes  # and no larger file does it send
    flask.config["STORE"] = config.store  # a local one takes no money for requests
    flask.extensions[ABSOLUTE] = parts.hosts.absolute
    flask.register_blueprint(web_blueprint)
    register_commands(flask)
    inner = _behind_images(flask.wsgi_app, config)
    delivery = FastPath(inner, parts.service, parts.cache, parts.metrics, config.script_name)
    hooks = LoopHooks(
        find=delivery.find,
        quick=frozenset({"/healthz", f"{config.script_name}/healthz"}),
        flush=parts.metrics.hits.flush,
        count_refused=parts.metrics.count_refused,
        count_dropped=parts.metrics.count_dropped,
    )
    front: WSGIApplication = delivery
    if config.script_name or config.trusted_proxies:
        own_paths = {rule.rule.split("/")[1] for rule in flask.url_map.iter_rules()}
        front = MountPoint(front, config.script_name, config.trusted_proxies, own_paths)
    if config.cors_origins:
        front = cors = Cors(front, config.cors_origins)
        hooks = replace(hooks, cors=cors.headers)
    flask.extensions[LoopHooks.NAME] = hooks
    flask.wsgi_app = RequestIds(front)  # type: ignore[method-assign]
    return flask


def _parts(flask: Flask, config: Config) -> Parts:
    store_class, generator_class = find_classes(config)
    bulkhead = Bulkhead(STORE_CALLS_PER_THREAD * config.threads)
    cache = _cache(config, bulkhead)
    metrics = Metrics(cache)
    store = MeteredStore(store_class.from_config(config), metrics)
    generator = MeteredGenerator(generator_class.from_config(config), metrics)
    limits = ImageLimits.from_config(config)
    links = ImageUrls(store, config.image_urls, config.public_base_url, bulkhead)
    decoding = DecodeLimiter(config.decode_concurrency, DECODE_PATIENCE)
    service = ImageService(
        store,
        cache,
        limits,
        decoding,
        max_upload_bytes=config.max_upload_bytes,
        url_of=links.url_of,
        bulkhead=bulkhead,
    )
    drawing = GeneratorRunner(generator, limits, decoding, config.generator_timeout)
    rates = {"upload": config.rate_limit_upload, "generate": config.rate_limit_generate}
    return Parts(
        service=service,
        generation=_generation(config, service, drawing),
        store=store,
        cache=cache,
        access=Access(config.api_keys, config.cors_origins),
        limits=RateLimits(flask, rates, config.ratelimit_storage_uri),
        hosts=Hosts(config.trusted_hosts, any_host=config.trusted_proxies > 0 and not config.trusted_hosts),
        config=config,
        metrics=metrics,
        readiness=ReadinessCheck(store, cache),
    )


def _generation(config: Config, service: ImageService, drawing: GeneratorRunner) -> GenerationService:
    return GenerationService(
        service,
        drawing,
        config.state_dir,
        concurrency=config.generate_concurrency,
        reuse=config.generate_reuse,
        keep_prompts=config.keep_prompts,
    )


def _cache(config: Config, bulkhead: Bulkhead) -> DiskCache:
    return DiskCache(
        config.cache_dir,
        config.cache_max_bytes,
        max_object_bytes=config.cache_max_object_bytes,
        ttl=config.cache_ttl,
        stale_if_error=config.cache_stale_if_error,
        negative_ttl=config.cache_negative_ttl,
        bulkhead=bulkhead,
    )


def _behind_images(application: "WSGIApplication", config: Config) -> "WSGIApplication":
    """What a request for no image passes on its way to Flask, the last first."""
    if config.trusted_proxies:
        hops = config.trusted_proxies
        application = ProxyFix(application, x_for=hops, x_proto=hops, x_host=hops)
    return RequestBodyGuard(application, config.threads)
