"""The loader for next/image, run by Node."""

import json
import shutil
import subprocess

import pytest

from app.config.variant_fields import DEFAULT_WIDTHS
from tests.browser.chromium import is_required
from tests.server.running import ROOT

LOADER = ROOT / "examples" / "next" / "image-loader.js"

NODE = shutil.which("node")

NEXT_WIDTHS = {32, 48, 64, 96, 128, 256, 384, 640, 750, 828, 1080, 1200, 1920, 2048, 3840}
"""The defaults of deviceSizes and imageSizes (https://nextjs.org/docs/app/api-reference/components/image)."""


def _load(widths: list[int]) -> list[str]:
    """Return the loader's URL for each width."""
    if NODE is None:
        if is_required():
            pytest.fail("REQUIRE_BROWSER=1, but Node is not installed")
        pytest.skip("Node is not installed")
    calls = f"{widths}.map((width) => imageLoader({{ src: '/api/images/me.jpg', width, quality: 75 }}))"
    script = f"{LOADER.read_text(encoding='utf-8')}\nconsole.log(JSON.stringify({calls}));"
    done = subprocess.run(
        [NODE, "--input-type=module", "-"], input=script, capture_output=True, text=True, check=True
    )
    urls: list[str] = json.loads(done.stdout)
    return urls


def test_every_permitted_width_has_its_own_url() -> None:
    assert _load(list(DEFAULT_WIDTHS)) == [f"/api/images/me.jpg/w{width}" for width in DEFAULT_WIDTHS]
    assert set(DEFAULT_WIDTHS) >= NEXT_WIDTHS


def test_other_widths_are_rounded_up_to_a_permitted_one() -> None:
    assert _load([1, 33, 641, 3841]) == [f"/api/images/me.jpg/w{width}" for width in (16, 48, 750, 3840)]
