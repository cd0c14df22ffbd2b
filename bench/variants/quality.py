"""How much variants look like their source: their structural similarity to a reference, and their bytes."""

import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bench.packages import python_with

_SCRIPT = Path(__file__).parent.parent / "apps" / "ssim.py"
_REQUIREMENTS = ("scikit-image==0.26.0", "pillow==13.0.0")


@dataclass(frozen=True)
class Quality:
    """The similarity of variants to their references, 1 if they are the same, and their average size.

    `luma` compares brightness and `colors` all channels. Both are means over all pictures.
    """

    luma: float
    colors: float
    size: float


def reference(source: Path, width: int, directory: Path) -> Path:
    """Scale a source down without any loss but that of the filter (Lanczos). Return the path of a PNG."""
    path = directory / f"{source.stem}.png"
    with Image.open(source) as image:
        height = round(image.height * width / image.width)
        image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(path, compress_level=1)
    return path


def compare(variants: Mapping[Path, Sequence[Path]]) -> list[Quality]:
    """Return the qualities of the first variants of all references, of the second ones, and so on.

    Raises `NotInstalledError` if the tool for it can't be installed, and `RuntimeError` if a variant has
    another size than its reference.
    """
    python = python_with(*_REQUIREMENTS)
    rows = []
    for original, paths in variants.items():
        job = json.dumps({"reference": str(original), "images": [str(path) for path in paths]})
        done = subprocess.run((python, _SCRIPT), input=job, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        if None in found:
            raise RuntimeError(f"{paths[found.index(None)]} has another size than {original}")
        sizes = [path.stat().st_size for path in paths]
        rows.append([Quality(**of, size=size) for of, size in zip(found, sizes, strict=True)])
    return [_mean(column) for column in zip(*rows, strict=True)]


def _mean(qualities: Sequence[Quality]) -> Quality:
    return Quality(
        statistics.fmean(quality.luma for quality in qualities),
        statistics.fmean(quality.colors for quality in qualities),
        statistics.fmean(quality.size for quality in qualities),
    )
