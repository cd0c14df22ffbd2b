"""`make screenshots`: take the pictures in docs/ of a running server, so that they stay true."""

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Literal

import requests
from PIL import Image
from playwright.sync_api import Browser, expect

from app.generators.base import GenerationRequest
from app.generators.builtin import BuiltinGenerator
from tests.browser.chromium import MISSING, chromium, executable
from tests.browser.conftest import cards
from tests.server.running import ROOT, Running, running

DOCS = ROOT / "docs"

PROMPTS = {
    "sunset-over-mountains": ("A beautiful sunset over mountains", 7),
    "paper-boats": ("Paper boats on a green river", 3),
    "city-in-the-rain": ("A city at night in the rain", 5),
    "snowy-forest": ("A snowy forest in the morning", 2),
    "desert-dunes": ("Desert dunes under a full moon", 4),
    "volcano": ("A volcano erupting at night", 6),
    "autumn-woods": ("Autumn woods in the fog", 1),
    "spring-meadow": ("A meadow in spring with flowers", 8),
    "planet": ("A planet with rings in space", 9),
    "beach": ("A tropical beach at noon", 10),
}
"""Prompt and seed of each image, by name. The same prompt and seed make the same image."""

SIDE = 512
STRIP_LENGTH = 6
ROUNDS = 31
"""How often each image is requested first, so that the page has figures of the cache to show."""


def main() -> None:
    """Take all pictures."""
    if executable() is None:
        sys.exit(f"Can't take pictures: {MISSING}.")
    images = {name: generate(*prompt) for name, prompt in PROMPTS.items()}
    save(strip(list(images.values())[:STRIP_LENGTH]), "generations")
    with (
        tempfile.TemporaryDirectory() as directory,
        chromium() as browser,
        running(Path(directory), WEB_CONCURRENCY="2") as server,
    ):
        fill(server, Path(directory), images)
        save(photograph(browser, server, "light"), "page")
        save(photograph(browser, server, "dark"), "page-dark")


def generate(prompt: str, seed: int) -> Image.Image:
    """Return the built-in generator's image."""
    image = BuiltinGenerator().generate(GenerationRequest(prompt, SIDE, SIDE, seed)).image
    assert isinstance(image, Image.Image)
    return image


def strip(images: list[Image.Image], side: int = 256, gap: int = 8) -> Image.Image:
    """Return the images in a row."""
    row = Image.new("RGBA", (len(images) * (side + gap) - gap, side))
    for number, image in enumerate(images):
        row.paste(
            image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), (number * (side + gap), 0)
        )
    return row


def fill(server: Running, directory: Path, images: dict[str, Image.Image]) -> None:
    """Upload the images, and request each: first a miss, then hits."""
    urls = [upload(server, name, image) for name, image in images.items()]
    shutil.rmtree(directory / "cache" / "named" / "gallery")
    for url in urls * ROUNDS:
        requests.get(url, timeout=10).raise_for_status()


def upload(server: Running, name: str, image: Image.Image) -> str:
    """Upload an image; return its URL."""
    data = io.BytesIO()
    image.save(data, "WEBP", quality=90)
    fields = {"folder": "gallery", "name": f"{name}.webp"}
    answer = requests.post(
        f"{server.url}/api/images", files={"image": data.getvalue()}, data=fields, timeout=10
    )
    return str(answer.json()["image_url"])


def photograph(browser: Browser, server: Running, scheme: Literal["light", "dark"]) -> Image.Image:
    """Return a screenshot of the page with all images and the final figures."""
    page = browser.new_page(
        viewport={"width": 1200, "height": 990}, color_scheme=scheme, reduced_motion="reduce"
    )
    page.clock.install()
    page.goto(server.url, wait_until="networkidle")
    expect(cards(page)).to_have_count(len(PROMPTS))
    hits = requests.get(f"{server.url}/api/cache", timeout=10).json()["hits"]
    page.clock.fast_forward(11_000)
    expect(page.locator("[data-cache=hits]")).to_have_text(str(hits))
    page.evaluate("Promise.all([...document.querySelectorAll('#grid img')].map((image) => image.decode()))")
    screenshot = page.screenshot(animations="disabled")
    page.close()
    return Image.open(io.BytesIO(screenshot))


def save(image: Image.Image, name: str) -> None:
    """Write `docs/<name>.webp`."""
    path = DOCS / f"{name}.webp"
    image.save(path, "WEBP", quality=80, method=6)
    sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
