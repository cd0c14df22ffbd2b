"""The servers whose hits are compared: how each of them is started, and why some may be missing."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.services.urls import IMAGES_PATH
from bench import nginx
from bench.processes import ROOT
from bench.product import WORKERS, environment, gunicorn, our_server
from bench.progress import say
from bench.servers import Server, Start, serving

OURS = "ours"
BARE = "bare `file_wrapper` app, our gunicorn flags"
PLAIN = "bare `file_wrapper` app, plain gthread 2×8"
FLASK = "Flask `send_file`, our gunicorn flags"
WHITENOISE = "WhiteNoise, our gunicorn flags"
NODE = "Node, Express, reads the file, `res.send`"
BEHIND_NGINX = "ours behind nginx (deploy/nginx.conf)"
NGINX = "nginx, static"
ORDER = (OURS, BARE, PLAIN, FLASK, WHITENOISE, NODE, BEHIND_NGINX, NGINX)


@dataclass
class Field:
    """The running servers, with ours first, and the reasons why others are missing."""

    servers: list[Server]
    missing: list[str]


@contextmanager
def field(directory: Path) -> Iterator[Field]:
    """Start all servers. Ours uses the cache in `directory`, and the others serve the files of that cache."""
    files = directory / "cache" / "objects"
    with ExitStack() as stack:
        ours = stack.enter_context(our_server(directory, name=OURS))
        started = Field([ours], [])
        for name, module, config in (
            (BARE, "bare", None),
            (PLAIN, "bare", ("--workers", str(WORKERS), "--threads", "8", "--worker-class", "gthread")),
            (FLASK, "flask_send_file", None),
            (WHITENOISE, "with_whitenoise", None),
        ):
            if module == "with_whitenoise" and importlib.util.find_spec("whitenoise") is None:
                started.missing.append("WhiteNoise is not installed (`pip install whitenoise`).")
                continue
            started.servers.append(stack.enter_context(_python(name, module, config, directory, files)))
        _add_node(stack, started, directory, files)
        _add_nginx(stack, started, directory, files, ours.port)
        yield started


@contextmanager
def _python(
    name: str, module: str, plain: tuple[str, ...] | None, directory: Path, files: Path
) -> Iterator[Server]:
    """Run an application of `bench.apps` on gthread.

    gunicorn gets the options `plain` or, if they are None, our settings.
    """
    application = f"bench.apps.{module}:application"

    def start(port: int) -> Start:
        env = {**environment(directory, port), "BENCH_FILES": str(files)}
        if plain is None:
            return Start((*gunicorn(application), "--worker-class", "gthread"), env)
        options = (
            "-c",
            "/dev/null",
            "--no-control-socket",
            "--pythonpath",
            str(ROOT),
            "-b",
            f"127.0.0.1:{port}",
        )
        return Start((sys.executable, "-m", "gunicorn", *options, *plain, application), env)

    with serving(name, start, directory / f"{module}.log") as server:
        yield server


def _add_node(stack: ExitStack, started: Field, directory: Path, files: Path) -> None:
    if not shutil.which("node") or not shutil.which("npm"):
        started.missing.append("node or npm is not installed.")
        return
    say("installing Express into a temporary directory")
    scratch = directory / "node"
    scratch.mkdir()
    command = ("npm", "install", "--no-fund", "--no-audit", "--prefix", str(scratch), "express@4")
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    if done.returncode:
        started.missing.append(f"npm could not install Express: {done.stderr.strip().splitlines()[-1]}")
        return
    shutil.copy(Path(__file__).parent / "apps" / "server.js", scratch)

    def start(port: int) -> Start:
        env = {"BENCH_FILES": str(files), "PORT": str(port), "NODE_ENV": "production"}
        return Start(("node", "server.js"), env, scratch)

    started.servers.append(stack.enter_context(serving(NODE, start, directory / "node.log")))


def _add_nginx(stack: ExitStack, started: Field, directory: Path, files: Path, upstream: int) -> None:
    if not shutil.which("nginx"):
        started.missing.append("nginx is not installed.")
        return

    def static(port: int) -> Start:
        return nginx.static(files, directory / "nginx-static", port)

    started.servers.append(stack.enter_context(serving(NGINX, static, directory / "nginx-static.log")))
    if not nginx.DEPLOYED.is_file():
        started.missing.append("deploy/nginx.conf is not there yet: ours behind nginx is not measured.")
        return

    def in_front(port: int) -> Start:
        scratch, cache_dir = directory / "nginx-front", directory / "cache"
        return nginx.in_front(scratch, port, upstream=upstream, cache_dir=cache_dir)

    log = directory / "nginx-front.log"
    try:
        started.servers.append(stack.enter_context(serving(BEHIND_NGINX, in_front, log, prefix=IMAGES_PATH)))
    except (ValueError, RuntimeError) as exc:
        started.missing.append(f"ours behind nginx: {exc}")
