"""What the views work with: the application's parts, kept in `app.extensions`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, ParamSpec, TypeVar

from flask import current_app, g, request

from app.api.auth import Access
from app.api.hosts import Hosts
from app.api.rate_limits import RateLimits
from app.cache.disk_cache import DiskCache
from app.config.settings import Config
from app.core.request_context import API_KEY_NAME
from app.observability.metrics import Metrics
from app.services.generation import GenerationService
from app.services.images import ImageService
from app.services.readiness import ReadinessCheck
from app.stores.base import BaseStore

P = ParamSpec("P")
R = TypeVar("R")

KEYED: list[dict[str, list[str]]] = [{"bearer": []}, {"apiKey": []}]
"""How OpenAPI says that a call takes a key in either way."""


@dataclass(frozen=True)
class Parts:
    """The parts of one application."""

    NAME: ClassVar[str] = "s3-image-server"

    service: ImageService
    generation: GenerationService
    store: BaseStore
    cache: DiskCache
    access: Access
    limits: RateLimits
    hosts: Hosts
    config: Config
    metrics: Metrics
    readiness: ReadinessCheck


def parts() -> Parts:
    """The parts of the application that serves this request."""
    found: Parts = current_app.extensions[Parts.NAME]
    return found


def idempotency_key(header: dict[str, Any]) -> str | None:
    """A digest of the `Idempotency-Key` in the fields of `IdempotencySchema`, of this client alone."""
    key = header["idempotency_key"]
    return key and parts().access.digest(request, key)


def key_required(scope: str, *, counted: bool = True) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a view be called only by those who may do what `scope` names, and no more often than they may."""

    def guard(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            key = parts().access.check(request, scope)
            if key is not None:
                g.key_name = request.environ[API_KEY_NAME] = key.name
            if counted:
                parts().limits.check(scope)
            return view(*args, **kwargs)

        return guarded

    return guard
