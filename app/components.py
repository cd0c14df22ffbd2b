"""The components of an application, built from its settings and kept in `app.extensions`."""

from dataclasses import dataclass, field
from typing import Any

from app.cache.disk_cache import DiskCache
from app.config.plugins import find_class
from app.config.settings import Config
from app.core.threads import STORE_CALLS_PER_THREAD, Bulkhead, DecodeLimiter
from app.delivery.fast_path import LoopHooks
from app.generators.base import BaseGenerator
from app.generators.bedrock import BedrockGenerator
from app.generators.builtin import BuiltinGenerator
from app.generators.openai import OpenAIGenerator
from app.imaging.survey import ImageLimits
from app.observability.metrics import MeteredGenerator, MeteredStore, Metrics
from app.services.drawing import GeneratorRunner
from app.services.generation import GenerationService
from app.services.images import ImageService
from app.services.rate_limits import RateLimits
from app.services.readiness import ReadinessCheck
from app.services.stored_variants import StoredVariants
from app.services.urls import ImageUrls, TrustedHosts
from app.services.variant_rules import VariantRules
from app.services.variant_urls import VariantUrls
from app.services.variants import VariantService
from app.stores.base import BaseStore
from app.stores.local import LocalStore
from app.stores.s3.store import S3Store

EXTENSION = "s3-image-server"
"""The key in `Flask.extensions` that holds the application's `Components`."""

DECODE_WAIT_SECONDS = 10.0
"""Maximum time that an image waits to be decoded. During this time, its request holds one of the worker's
upload slots."""

MAX_SOURCE_BYTES = 64 * 1024 * 1024
"""Maximum size of the file of an image from which variants are made, if uploads may not be larger. Other
software may have stored larger files, but a decoder needs a multiple of this size in memory."""

STORES: dict[str, type[BaseStore]] = {"local": LocalStore, "s3": S3Store}
GENERATORS: dict[str, type[BaseGenerator]] = {
    "builtin": BuiltinGenerator,
    "bedrock": BedrockGenerator,
    "openai": OpenAIGenerator,
}


@dataclass(frozen=True)
class Components:
    """The components of one application. The worker's event loop calls the functions in `loop_hooks`."""

    config: Config
    store: BaseStore
    cache: DiskCache
    images: ImageService
    variants: VariantService
    variant_urls: VariantUrls
    generation: GenerationService
    hosts: TrustedHosts
    rate_limits: RateLimits
    readiness: ReadinessCheck
    metrics: Metrics
    loop_hooks: LoopHooks = field(default_factory=LoopHooks)

    @property
    def variant_rules(self) -> VariantRules:
        """The rules that say which variants are permitted."""
        return self.variant_urls.rules


def components_of(application: Any) -> Components:
    """Return the components of a Flask application, which can be `current_app`."""
    found: Components = application.extensions[EXTENSION]
    return found


def find_classes(config: Config) -> tuple[type[BaseStore], type[BaseGenerator]]:
    """Return the classes that `STORE` and `GENERATOR` name.

    Raises `ConfigError` if a class can't be loaded.
    """
    return (
        find_class("STORE", config.store, STORES, BaseStore),
        find_class("GENERATOR", config.generator, GENERATORS, BaseGenerator),
    )


def build_components(config: Config) -> Components:
    """Build the components from the settings. Raises `ConfigError` if the settings can't be used."""
    store_class, generator_class = find_classes(config)
    bulkhead = Bulkhead(STORE_CALLS_PER_THREAD * config.threads)
    cache = DiskCache(
        config.cache_dir,
        config.cache_max_bytes,
        max_object_bytes=config.cache_max_object_bytes,
        ttl=config.cache_ttl,
        stale_if_error=config.cache_stale_if_error,
        negative_ttl=config.cache_negative_ttl,
        bulkhead=bulkhead,
    )
    metrics = Metrics(cache)
    store = MeteredStore(store_class.from_config(config), metrics)
    generator = MeteredGenerator(generator_class.from_config(config), metrics)
    limits = ImageLimits.from_config(config)
    decoding = DecodeLimiter(config.decode_concurrency, DECODE_WAIT_SECONDS)
    variant_urls = VariantUrls.from_config(config)
    images = ImageService(
        store,
        cache,
        limits,
        decoding,
        max_upload_bytes=config.max_upload_bytes,
        urls=ImageUrls(store, config.image_urls, config.public_base_url, bulkhead),
        variant_urls=variant_urls,
        bulkhead=bulkhead,
        stored_variants=StoredVariants(store, bulkhead, enabled=config.variants_in_store),
    )
    variants = VariantService(
        images,
        cache,
        limits,
        DecodeLimiter(config.variant_concurrency, DECODE_WAIT_SECONDS),
        max_pixels=config.variant_max_pixels,
        max_source_bytes=max(MAX_SOURCE_BYTES, config.max_upload_bytes),
        on_made=metrics.count_variant,
        on_load=metrics.note_variants,
    )
    generation = GenerationService(
        images,
        GeneratorRunner(generator, limits, decoding),
        config.state_dir,
        concurrency=config.generate_concurrency,
        timeout=config.generator_timeout,
        keep_prompts=config.keep_prompts,
    )
    rates = {"upload": config.rate_limit_upload, "generate": config.rate_limit_generate}
    return Components(
        config=config,
        store=store,
        cache=cache,
        images=images,
        variants=variants,
        variant_urls=variant_urls,
        generation=generation,
        hosts=TrustedHosts(
            config.trusted_hosts, trust_all=config.trusted_proxies > 0 and not config.trusted_hosts
        ),
        rate_limits=RateLimits(rates, config.ratelimit_storage_uri),
        readiness=ReadinessCheck(store, cache),
        metrics=metrics,
    )
