"""Hits of variants, compared with hits of the same bytes that were uploaded, and with nginx."""

import shutil
import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.services.urls import IMAGES_PATH
from bench import nginx
from bench.load import Load, put_load
from bench.pictures import jpeg, photo
from bench.plan import Plan, rotated
from bench.product import assert_hit, our_parts, our_server
from bench.progress import say
from bench.report import Figure, Section, Table, at_least, median_ratio
from bench.servers import Server, Start, get, serving
from bench.variants.ours import ACCEPT, FORMATS, WIDTH, fetch, path_of, upload

_PLAIN = "plain"
_VARIANT = "variant"
_NEGOTIATED = "variant, negotiated"
_BEHIND_NGINX = "variant behind nginx"
_NEGOTIATED_BEHIND_NGINX = "variant behind nginx, negotiated"
_NGINX = "nginx, static"

_TARGETS = ((_VARIANT, _PLAIN, 0.95), (_BEHIND_NGINX, _NGINX, 0.9))

_METHOD = f"""\
A server makes variants {WIDTH} pixels wide of a JPEG of 12 megapixels, and each variant is also uploaded as
an image. *Plain* are hits of these images. The negotiated variant has no extension, and is requested with
Chrome's Accept header, so it is an AVIF. nginx in front of the server uses deploy/nginx.conf, and *{_NGINX}*
serves copies of the variants. All requests are measured in turn, as in *Hits* above, in {{rounds}} rounds of
{{seconds}} s."""


@dataclass(frozen=True)
class _Request:
    """A request that is measured: what it is, for which image, and how it is sent."""

    what: str
    extension: str
    server: Server
    path: str
    headers: dict[str, str] = field(default_factory=dict)


def run(plan: Plan) -> Section:
    """Measure variants of each format, and the negotiated one."""
    directory = plan.new_directory("variants/hits")
    section = Section("Hits of variants", _METHOD.format(rounds=plan.rounds, seconds=plan.seconds))
    with our_parts(directory) as parts:
        key = upload(parts, jpeg(photo(0)))
    with our_server(directory) as server:
        bodies = {ext: fetch(server, path_of(key, f"w{WIDTH}.{ext}")).body for ext in FORMATS}
    static = _copy(bodies, directory)
    with our_parts(directory) as parts:
        plain = {ext: upload(parts, body) for ext, body in bodies.items()}
    with our_server(directory) as server, _nginx(directory, static, server, section) as proxies:
        requests = [*_alone(server, key, plain), *_behind(proxies, key)]
        _check(requests, bodies)
        measured = _measure(plan, requests)
        for request in requests:
            if request.server is server:
                assert_hit(server, request.path)
    section.tables = [_table(ext, measured) for ext in FORMATS]
    section.figures = _figures(measured)
    return section


def _copy(bodies: dict[str, bytes], directory: Path) -> Path:
    static = directory / "static"
    static.mkdir()
    for extension, body in bodies.items():
        (static / f"image.{extension}").write_bytes(body)
    return static


@contextmanager
def _nginx(directory: Path, static: Path, server: Server, section: Section) -> Iterator[list[Server]]:
    """Start nginx in front of our server, and nginx as a static server."""
    if not shutil.which("nginx"):
        section.notes.append("nginx is not installed.")
        yield []
        return

    def front(port: int) -> Start:
        cache_dir = directory / "cache"
        return nginx.in_front(directory / "front", port, upstream=server.port, cache_dir=cache_dir)

    def plain(port: int) -> Start:
        return nginx.static(static, directory / "nginx-static", port)

    with (
        serving(_BEHIND_NGINX, front, directory / "front.log", prefix=IMAGES_PATH) as in_front,
        serving(_NGINX, plain, directory / "static.log") as alone,
    ):
        yield [in_front, alone]


def _alone(server: Server, key: str, plain: dict[str, str]) -> list[_Request]:
    requests = [_Request(_PLAIN, ext, server, IMAGES_PATH + plain[ext]) for ext in FORMATS]
    requests += [_Request(_VARIANT, ext, server, path_of(key, f"w{WIDTH}.{ext}")) for ext in FORMATS]
    return [*requests, _Request(_NEGOTIATED, "avif", server, path_of(key, f"w{WIDTH}"), {"Accept": ACCEPT})]


def _behind(proxies: list[Server], key: str) -> list[_Request]:
    if not proxies:
        return []
    front, static = proxies
    requests = [_Request(_BEHIND_NGINX, ext, front, path_of(key, f"w{WIDTH}.{ext}")) for ext in FORMATS]
    requests += [_Request(_NGINX, ext, static, f"/image.{ext}") for ext in FORMATS]
    path = path_of(key, f"w{WIDTH}")
    return [*requests, _Request(_NEGOTIATED_BEHIND_NGINX, "avif", front, path, {"Accept": ACCEPT})]


def _check(requests: list[_Request], bodies: dict[str, bytes]) -> None:
    """Raise `RuntimeError` unless all requests for a format are answered with the same bytes."""
    for request in requests:
        for _ in range(2):  # the first one may be a miss
            response = get(request.server.port, request.path, request.headers)
        if response.body != bodies[request.extension]:
            raise RuntimeError(f"{request.what}, {request.extension}: {response.status}, other bytes")


def _measure(plan: Plan, requests: list[_Request]) -> dict[tuple[str, str], list[Load]]:
    measured: dict[tuple[str, str], list[Load]] = defaultdict(list)
    for number in range(plan.rounds):
        say(f"hits of variants, round {number + 1} of {plan.rounds}")
        for extension in FORMATS:
            of_format = [request for request in requests if request.extension == extension]
            for request in rotated(of_format, number):
                load = put_load(request.server, [request.path], plan.seconds, request.headers)
                measured[request.what, extension].append(load)
    return measured


def _table(extension: str, measured: dict[tuple[str, str], list[Load]]) -> Table:
    rows = []
    for (what, of), loads in measured.items():
        if of == extension:
            base = measured[_NGINX if "nginx" in what else _PLAIN, extension]
            rates, cpus = [load.rate for load in loads], [load.cpu for load in loads]
            rows.append(
                (
                    what,
                    f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})",
                    f"{statistics.median(cpus):.0f}",
                    f"{median_ratio(rates, [load.rate for load in base]):.2f} ×",
                    f"{median_ratio([load.cpu for load in base], cpus):.2f} ×",
                )
            )
    head = ("what", "requests/s", "CPU µs", "by rate", "by CPU")
    return Table(f"{FORMATS[extension]}, against plain hits or static files", head, sorted(rows))


def _figures(measured: dict[tuple[str, str], list[Load]]) -> list[Figure]:
    figures = []
    for what, base, target in _TARGETS:
        for extension in FORMATS:
            if (base, extension) in measured:
                rates = [[load.rate for load in measured[name, extension]] for name in (what, base)]
                name = f"hit of w{WIDTH}.{extension}: {what}, against {base}"
                figures.append(at_least(name, median_ratio(*rates), target))
    return figures
