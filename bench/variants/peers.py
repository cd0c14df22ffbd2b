"""The servers whose variants are compared with ours: IPX with sharp (libvips), and thumbor with Pillow."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.packages import NotInstalledError, npm_package, python_with
from bench.servers import Server, Start, serving

IPX = "IPX (sharp)"
THUMBOR = "thumbor"
IPX_VERSION, THUMBOR_VERSION = "3.1.1", "7.8.0"

_THUMBOR_CONF = """\
LOADER = "thumbor.loaders.file_loader"
FILE_LOADER_ROOT_PATH = "{sources}"
STORAGE = "thumbor.storages.no_storage"
"""
"""All else is as it comes. Thumbor's default storage would copy each source, which no other server does."""


@dataclass(frozen=True)
class Maker:
    """A server that makes variants. `path` returns the path of a variant: of a source, a width, a format."""

    server: Server
    path: Callable[[str, int, str], str]


@contextmanager
def peers(sources: Path, scratch: Path) -> Iterator[tuple[list[Maker], list[str]]]:
    """Start the peers over the files in `sources`. Yield them, and the reasons why some are missing."""
    started: list[Maker] = []
    missing: list[str] = []
    with ExitStack() as stack:
        for start in (_ipx, _thumbor):
            try:
                started.append(stack.enter_context(start(sources, scratch)))
            except NotInstalledError as exc:
                missing.append(str(exc))
        yield started, missing


@contextmanager
def _ipx(sources: Path, scratch: Path) -> Iterator[Maker]:
    command = npm_package("ipx", IPX_VERSION) / "node_modules" / "ipx" / "bin" / "ipx.mjs"

    def start(port: int) -> Start:
        options = ("--dir", str(sources), "--hostname", "127.0.0.1", "--port", str(port))
        return Start(("node", str(command), "serve", *options), {"NODE_ENV": "production"}, scratch)

    with serving(IPX, start, scratch / "ipx.log") as server:
        yield Maker(server, lambda name, width, ext: f"/w_{width},f_{_ipx_format(ext)}/{name}")


def _ipx_format(ext: str) -> str:
    return {"jpg": "jpeg"}.get(ext, ext)


@contextmanager
def _thumbor(sources: Path, scratch: Path) -> Iterator[Maker]:
    python = python_with(f"thumbor=={THUMBOR_VERSION}")
    conf = scratch / "thumbor.conf"
    conf.write_text(_THUMBOR_CONF.format(sources=sources))

    def start(port: int) -> Start:
        options = ("--ip", "127.0.0.1", "--port", str(port), "--conf", str(conf))
        return Start((str(python), "-m", "thumbor.server", *options), cwd=scratch)

    with serving(THUMBOR, start, scratch / "thumbor.log", ready="/healthcheck") as server:
        yield Maker(server, lambda name, width, ext: f"/unsafe/{width}x0/filters:format({ext})/{name}")
