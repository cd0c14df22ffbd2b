"""Making variants: CPU time, bytes and similarity, compared with IPX and thumbor."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.packages import NotInstalledError
from bench.pictures import copies, photo
from bench.plan import Plan, rotated
from bench.processes import cpu_seconds
from bench.product import our_parts, our_server
from bench.progress import say
from bench.report import Figure, Section, Table, at_most, median_ratio
from bench.variants.ours import FORMATS, WIDTH, fetch, made, path_of, upload
from bench.variants.peers import IPX, IPX_VERSION, THUMBOR, THUMBOR_VERSION, Maker, peers
from bench.variants.quality import Quality, compare, reference

PICTURES = 4
"""Number of different pictures in each round."""

_OURS = "ours"
_LIKE_IPX = "thumbor, `quality(50)`"
"""Thumbor's default quality for AVIF makes files that are almost three times as large as IPX's."""

_PLACES = 4
"""SSIM is rounded to this number of decimal places."""

_METHOD = f"""\
Ours, IPX {IPX_VERSION} and thumbor {THUMBOR_VERSION} make variants {WIDTH} pixels wide of JPEGs of
4000 × 3000 pixels and about 3 MB, one after the other, in {{rounds}} rounds with {PICTURES} pictures each
(bench/pictures.py). No picture occurs in two rounds. All servers read the pictures from a local directory and
run as they come, except that thumbor doesn't copy its sources. Since thumbor's AVIFs are far larger by
default, it also makes some of IPX's quality. *CPU* is user and system time of all processes of the server for
one variant, the median of the rounds, and ratios are medians of the ratios within a round. *SSIM* is the
structural similarity of the luma to a reference: the picture, decoded at its full size and scaled down with a
Lanczos filter by Pillow. *SSIM, RGB* is the mean of the color channels."""


@dataclass
class Runs:
    """The CPU milliseconds for one variant in each round, and the first round's variants by picture."""

    cpu: list[float]
    first: list[Path]


_Measured = dict[tuple[str, str], Runs]
"""The runs, by server and extension."""


@dataclass(frozen=True)
class _Contender:
    name: str
    maker: Maker
    extensions: tuple[str, ...]


def run(plan: Plan) -> Section:
    """Measure all servers and formats, and compare ours with the peers."""
    directory = plan.new_directory("variants/making")
    sources = plan.new_directory("variants/making/sources")
    section = Section("Making variants", _METHOD.format(rounds=plan.rounds))
    files = _make_sources(plan, sources)
    with _contenders(directory, sources, files) as (contenders, missing):
        section.notes += missing
        measured = _measure(plan, contenders, files, directory)
    references = [reference(path, WIDTH, directory) for path in files[0]]
    try:
        qualities = _qualities(measured, references)
    except NotInstalledError as exc:
        section.notes.append(str(exc))
        qualities = {}
    for extension in FORMATS:
        section.tables.append(_table(extension, measured, qualities))
    section.figures = [*_cpu_figures(measured), *_quality_figures(qualities)]
    return section


def _make_sources(plan: Plan, directory: Path) -> list[list[Path]]:
    """Return the files of each round."""
    say("making pictures")
    files: list[list[Path]] = [[] for _ in range(plan.rounds + 1)]
    for seed in range(PICTURES):
        for number, data in enumerate(copies(photo(seed), len(files))):
            path = directory / f"{number}-{seed}.jpg"
            path.write_bytes(data)
            files[number].append(path)
    return files


@contextmanager
def _contenders(
    directory: Path, sources: Path, files: list[list[Path]]
) -> Iterator[tuple[list[_Contender], list[str]]]:
    say("uploading pictures")
    with our_parts(directory) as parts:
        keys = {path.name: upload(parts, path.read_bytes()) for round_ in files for path in round_}
    every = tuple(FORMATS)
    with our_server(directory) as server, peers(sources, directory) as (makers, missing):
        ours = Maker(server, lambda name, width, ext: path_of(keys[name], f"w{width}.{ext}"))
        contenders = [_Contender(_OURS, ours, every)]
        for maker in makers:
            contenders.append(_Contender(maker.server.name, maker, every))
            if maker.server.name == THUMBOR:
                alike = Maker(maker.server, partial(_with_quality, maker.path))
                contenders.append(_Contender(_LIKE_IPX, alike, ("avif",)))
        yield contenders, missing


def _with_quality(path: Callable[[str, int, str], str], name: str, width: int, ext: str) -> str:
    return path(name, width, ext).replace("/filters:", "/filters:quality(50):")


def _measure(plan: Plan, contenders: list[_Contender], files: list[list[Path]], directory: Path) -> _Measured:
    measured: _Measured = defaultdict(lambda: Runs([], []))
    made_before = made(contenders[0].maker.server)
    for number, pictures in enumerate(files):
        say(f"making variants, round {number} of {plan.rounds}")
        for extension in FORMATS:
            for contender in rotated(contenders, number):
                if extension in contender.extensions:
                    cpu, variants = _make(contender.maker, pictures, extension)
                    runs = measured[contender.name, extension]
                    if number == 0:  # a warm-up, as servers load their codecs at the first variant
                        runs.first = _write(variants, pictures, contender.name, directory, extension)
                    else:
                        runs.cpu.append(cpu)
    made_now = made(contenders[0].maker.server) - made_before
    if made_now != len(files) * PICTURES * len(FORMATS):
        raise RuntimeError(f"ours made {made_now} variants for {len(files) * PICTURES * len(FORMATS)} paths")
    return measured


def _make(maker: Maker, pictures: list[Path], extension: str) -> tuple[float, list[bytes]]:
    """Return the CPU milliseconds for one variant, and the variants."""
    variants = []
    cpu = cpu_seconds(maker.server.pid)
    for picture in pictures:
        response = fetch(maker.server, maker.path(picture.name, WIDTH, extension))
        if response.headers["content-type"] != FORMATS[extension]:
            raise RuntimeError(f"{maker.server.name}: {response.headers['content-type']}")
        variants.append(response.body)
    return (cpu_seconds(maker.server.pid) - cpu) / len(pictures) * 1000, variants


def _write(
    variants: list[bytes], pictures: list[Path], name: str, directory: Path, extension: str
) -> list[Path]:
    paths = []
    for data, picture in zip(variants, pictures, strict=True):
        words = "".join(character for character in name if character.isalnum())
        paths.append(directory / f"{words}-{picture.stem}.{extension}")
        paths[-1].write_bytes(data)
    return paths


def _qualities(measured: _Measured, references: list[Path]) -> dict[tuple[str, str], Quality]:
    say("comparing variants with their sources")
    columns = zip(*(runs.first for runs in measured.values()), strict=True)
    found = compare(dict(zip(references, columns, strict=True)))
    return dict(zip(measured, found, strict=True))


def _table(extension: str, measured: _Measured, qualities: Mapping[tuple[str, str], Quality]) -> Table:
    ours = measured[_OURS, extension].cpu
    rows = []
    for (name, ext), runs in measured.items():
        if ext == extension:
            quality = qualities.get((name, ext))
            spread = f"{statistics.median(runs.cpu):.0f} ms ({min(runs.cpu):.0f}–{max(runs.cpu):.0f})"
            rows.append(
                (
                    name,
                    spread,
                    f"{median_ratio(ours, runs.cpu):.2f} ×",
                    *(
                        (f"{quality.size:,.0f}", f"{quality.luma:.4f}", f"{quality.colors:.4f}")
                        if quality
                        else ("–", "–", "–")
                    ),
                )
            )
    head = ("server", "CPU", "ours, by CPU", "bytes", "SSIM", "SSIM, RGB")
    return Table(f"{FORMATS[extension]}, {WIDTH} pixels wide", head, rows)


def _cpu_figures(measured: _Measured) -> list[Figure]:
    figures = []
    for extension in FORMATS:
        for peer, target in ((IPX, 0.25 if extension == "avif" else 1), (THUMBOR, 0.7), (_LIKE_IPX, 0.7)):
            if (peer, extension) in measured:
                ratio = median_ratio(measured[_OURS, extension].cpu, measured[peer, extension].cpu)
                figures.append(
                    at_most(f"making w{WIDTH}.{extension}: CPU, against {peer}", ratio, target, "×")
                )
    return figures


def _quality_figures(qualities: Mapping[tuple[str, str], Quality]) -> list[Figure]:
    """Compare the qualities with IPX's."""
    figures = []
    for extension in FORMATS:
        if (IPX, extension) in qualities:
            ours, theirs = qualities[_OURS, extension], qualities[IPX, extension]
            less = round(theirs.luma - ours.luma, _PLACES)
            what = f"making w{WIDTH}.{extension}, against {IPX}"
            figures.append(at_most(f"{what}: less SSIM", less, 0.005, ""))
            figures.append(at_most(f"{what}: bytes", ours.size / theirs.size, 1.1, "×"))
    return figures
