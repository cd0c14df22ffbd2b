"""Our server and its components in temporary directories, independent of the environment and `.env`."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

from PIL import Image

from app import create_app
from app.components import Components, components_of
from app.config.settings import Config
from app.services.urls import IMAGES_PATH
from bench.processes import ROOT
from bench.servers import Server, Start, get, serving

WORKERS = 2
HIT = "s3-image-server; hit"


@contextmanager
def our_server(
    directory: Path, settings: Mapping[str, str] | None = None, name: str = "ours"
) -> Iterator[Server]:
    """Run `gunicorn wsgi:app`, as `make run` does, with the cache and the store in `directory`."""
    started = serving(
        name,
        lambda port: Start(gunicorn("wsgi:app"), environment(directory, port, settings)),
        directory / "ours.log",
        prefix=IMAGES_PATH,
        ready="/readyz",
    )
    with started as server:
        yield server


@contextmanager
def our_parts(directory: Path) -> Iterator[Components]:
    """Yield the components for the same directories, in this process."""
    settings = replace(Config(), local_store_dir=directory / "store", cache_dir=directory / "cache")
    parts: Components = components_of(create_app(settings))
    try:
        yield parts
    finally:
        parts.cache.close()


def gunicorn(application: str) -> tuple[str, ...]:
    """Return the command that runs an application with `gunicorn.conf.py`."""
    return (sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), application)


def environment(directory: Path, port: int, settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment: `settings`, a few fixed settings, and the defaults of all others."""
    return {
        **{field.name.upper(): "" for field in fields(Config)},
        "ENV_FILE": os.devnull,
        "STORE": "local",
        "LOCAL_STORE_DIR": str(directory / "store"),
        "CACHE_DIR": str(directory / "cache"),
        "WEB_CONCURRENCY": str(WORKERS),
        "LOG_LEVEL": "WARNING",
        "PORT": str(port),
        **(settings or {}),
    }


def upload_noise(parts: Components, size: int) -> str:
    """Upload an incompressible PNG of about `size` bytes, and return its key."""
    edge = round((size / 3) ** 0.5)
    image = Image.frombytes("RGB", (edge, edge), os.urandom(3 * edge * edge))
    return parts.images.upload_pil_image(image).key


def assert_hit(server: Server, path: str) -> None:
    """Raise `RuntimeError` unless our server answers `path` from its cache."""
    response = get(server.port, path)
    if response.status != 200 or not response.headers.get("cache-status", "").startswith(HIT):
        raise RuntimeError(f"{path}: {response.status}, Cache-Status {response.headers.get('cache-status')}")
