"""S3 Image Server: upload or generate images, keep them in S3, serve them from a bounded disk cache."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from app.api import register_api
from app.components import EXTENSION, build_components
from app.config.settings import Config
from app.core.request_context import RequestIds
from app.delivery.cors import Cors
from app.delivery.fast_path import FastPath, LoopHooks
from app.delivery.mount_point import MountPoint
from app.delivery.request_body import RequestBodyGuard
from app.ops.cli import register_commands
from app.web import blueprint as web_blueprint

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def create_app(config: Config | None = None) -> Flask:
    """Build the application from `config`, by default from the environment variables.

    A request passes through these layers, from the outermost to the innermost: request IDs, CORS, the mount
    point, the fast path for cached images, the headers of trusted proxies, the limits on request bodies, and
    Flask.

    Raises `ConfigError` if the settings can't be used.
    """
    config = config or Config.from_env(os.environ)
    components = build_components(config)
    flask = Flask(__name__, static_folder=None)
    register_api(flask, components)
    flask.register_blueprint(web_blueprint)
    register_commands(flask)

    application: WSGIApplication = RequestBodyGuard(flask.wsgi_app, config.threads)
    if config.trusted_proxies:
        hops = config.trusted_proxies
        application = ProxyFix(application, x_for=hops, x_proto=hops, x_host=hops)
    application = fast_path = FastPath(
        application,
        components.images,
        components.cache,
        components.metrics,
        components.variant_rules,
        config.script_name,
    )
    hooks = LoopHooks(
        find=fast_path.find,
        answer=fast_path.answer,
        quick=frozenset({"/healthz", f"{config.script_name}/healthz"}),
        flush=components.metrics.hits.flush,
        count_refused=components.metrics.count_refused,
        count_dropped=components.metrics.count_dropped,
    )
    if config.script_name or config.trusted_proxies:
        own_paths = {rule.rule.split("/")[1] for rule in flask.url_map.iter_rules()}
        application = MountPoint(application, config.script_name, config.trusted_proxies, own_paths)
    if config.cors_origins:
        application = cors = Cors(application, config.cors_origins)
        hooks = replace(hooks, cors=cors.headers, answer=cors.wrap(fast_path.answer))
    flask.wsgi_app = RequestIds(application)  # type: ignore[method-assign]
    flask.extensions[EXTENSION] = replace(components, loop_hooks=hooks)
    return flask
