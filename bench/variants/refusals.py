"""Made-up specs: what they cost, compared with keys that don't exist, and what they leave behind."""

import asyncio
import random
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from app.config.settings import Config
from app.services.urls import IMAGES_PATH
from bench.pictures import jpeg, photo
from bench.plan import Plan, rotated
from bench.processes import cpu_seconds
from bench.product import our_parts, our_server
from bench.progress import say
from bench.report import Section, Table, at_most, median_ratio
from bench.servers import Server
from bench.variants.ours import WIDTH, fetch, made, path_of, upload
from bench.variants.requests import request_all

REQUESTS = 10_000
_CHUNKS = 10
_SPECS = "made-up specs"
_KEYS = "keys that don't exist"

_METHOD = f"""\
{REQUESTS:,} different specs are requested for an image that exists: widths that are not listed, boxes and
crops without a signature or with a wrong one, and words that don't exist, in equal shares. {REQUESTS:,}
different keys that don't exist are requested for comparison, from a local store. Both are sent in turn, in
{_CHUNKS} parts, over 16 connections. *CPU* is user and system time of all processes of the server for one
response. Ratios are medians of the ratios within each part."""


def run(plan: Plan) -> Section:
    """Request made-up specs and keys that don't exist."""
    directory = plan.new_directory("variants/refusals")
    with our_parts(directory) as parts:
        key = upload(parts, jpeg(photo(0, (1200, 900))))
    chance = random.Random(1)
    paths = {
        _SPECS: [path_of(key, name) for name in made_up_names(chance, REQUESTS)],
        _KEYS: [f"{IMAGES_PATH}{unknown_key(chance)}" for _ in range(REQUESTS)],
    }
    cpu: dict[str, list[float]] = {what: [] for what in paths}
    statuses: dict[str, Counter[int]] = {what: Counter() for what in paths}
    with our_server(directory) as server:
        _send(server, [f"{IMAGES_PATH}{unknown_key(chance)}" for _ in range(200)])  # a warm-up
        _send(server, [path_of(key, name) for name in made_up_names(chance, 200)])
        fetch(server, path_of(key, f"w{WIDTH}.webp"))
        before, files_before = made(server), _files(directory)
        if before != 1:
            raise RuntimeError(f"after one variant, {before} encodings are counted")
        size = REQUESTS // _CHUNKS
        for number in range(_CHUNKS):
            say(f"made-up specs, part {number + 1} of {_CHUNKS}")
            for what in rotated(list(paths), number):
                used, found = _send(server, paths[what][number * size : (number + 1) * size])
                cpu[what].append(used / size * 1e6)
                statuses[what] += found
        encodings, files = made(server) - before, len(_files(directory) - files_before)
    if set(statuses[_KEYS]) != {404} or set(statuses[_SPECS]) - {400, 403}:
        raise RuntimeError(f"unexpected statuses: {statuses}")
    return _section(cpu, statuses, encodings, files)


def made_up_names(chance: random.Random, count: int) -> list[str]:
    """Return different names of variants with an extension and maybe a query. All of them are refused."""
    listed = set(Config().variant_widths)
    kinds: tuple[Callable[[int], str], ...] = (
        lambda n: f"w{n}.webp",
        lambda n: f"w{n},h{chance.randrange(1, 9999)},cover.avif",
        lambda n: f"w{n},q50.jpg?sig={chance.randbytes(32).hex()[:43]}",
        lambda n: f"x{n}.png",
    )
    widths = [width for width in range(1, 16_384) if width not in listed]
    chosen = chance.sample(widths, -(-count // len(kinds)))
    return [kind(width) for width in chosen for kind in kinds][:count]


def unknown_key(chance: random.Random) -> str:
    """Return a content-addressed key of no image."""
    digits = chance.randbytes(16).hex()
    return f"images/{digits[:2]}/{digits[2:]}.jpg"


def _send(server: Server, paths: list[str]) -> tuple[float, Counter[int]]:
    """Return the CPU seconds of the server, and how often each status was received."""
    cpu = cpu_seconds(server.pid)
    statuses = asyncio.run(request_all(server.port, paths))
    return cpu_seconds(server.pid) - cpu, statuses


def _files(directory: Path) -> set[Path]:
    """Return the files in the directories of the server, except the index's, which change at any time."""
    return {path for path in directory.rglob("*") if path.is_file() and "sqlite3" not in path.name}


def _section(
    cpu: dict[str, list[float]], statuses: dict[str, Counter[int]], encodings: int, files: int
) -> Section:
    section = Section("Made-up specs", _METHOD)
    rows = []
    for what, used in cpu.items():
        found = ", ".join(f"{count:,} × {status}" for status, count in sorted(statuses[what].items()))
        spread = f"{statistics.median(used):.0f} µs ({min(used):.0f}–{max(used):.0f})"
        rows.append((what, found, spread, f"{median_ratio(used, cpu[_KEYS]):.2f} ×"))
    section.tables = [Table("Refusals", ("what", "responses", "CPU", "against unknown keys"), rows)]
    what = f"{REQUESTS:,} made-up specs"
    section.figures = [
        at_most(f"{what}: encodings", encodings, 0, ""),
        at_most(f"{what}: files", files, 0, ""),
        at_most(f"{what}: CPU, against a plain 404", median_ratio(cpu[_SPECS], cpu[_KEYS]), 1.2, "×"),
    ]
    return section
