"""The React example: installed from its lock file, built, and used through its proxy."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import is_required
from tests.browser.conftest import stored
from tests.ports import free_port
from tests.server.running import ROOT, Running
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

EXAMPLE = ROOT / "examples" / "react"

NPM = shutil.which("npm")


def _build(directory: Path) -> Path:
    """Copy the example into `directory`, install its packages and build it; return the copy."""
    assert NPM is not None
    copy = directory / "react"
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    for command in (["ci", "--no-progress"], ["run", "build"]):
        done = subprocess.run([NPM, *command], cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return copy


@contextmanager
def _served(copy: Path, api: str) -> Iterator[str]:
    """Serve the built example with Vite, which proxies `/api` to the URL `api`; yield its URL."""
    port = free_port()
    command = [str(copy / "node_modules" / ".bin" / "vite"), "preview", "--port", str(port), "--strictPort"]
    environ = {**os.environ, "IMAGE_SERVER": api}
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1"], cwd=copy, env=environ, stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield _wait_for(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


def _wait_for(url: str) -> str:
    def answers() -> bool:
        with suppress(requests.RequestException):
            return requests.get(url, timeout=5).ok
        return False

    wait_until(answers, seconds=90)
    return url


@pytest.fixture(scope="module")
def built_example(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if NPM is None:
        missing = "npm is not installed (on Debian: apt-get install npm)"
        if is_required():
            pytest.fail(f"REQUIRE_BROWSER=1, but {missing}")
        pytest.skip(missing)
    return _build(tmp_path_factory.mktemp("example"))


@pytest.fixture
def front_end(built_example: Path, server: Running) -> Iterator[str]:
    """The URL of the example, which calls `server`."""
    with _served(built_example, server.url) as url:
        yield url


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((EXAMPLE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert len(packages) > 10
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert [name for name, package in packages.items() if name and "integrity" not in package] == []


def test_the_example_generates_and_uploads_images_and_shows_errors(
    page: Page, front_end: str, server: Running, files: list[Path], tmp_path: Path
) -> None:
    page.set_viewport_size({"width": 600, "height": 900})
    page.goto(front_end)
    page.get_by_role("button", name="Generate Image").click()
    generated = page.get_by_alt_text("A beautiful sunset over mountains")
    expect(generated).to_be_visible()
    expect(generated).to_have_css("background-image", "none")  # the placeholder is removed after loading
    assert re.search(r"\.png/w\d+$", generated.evaluate("image => image.currentSrc"))
    assert 500 < generated.evaluate("image => image.clientWidth") <= 600
    page.get_by_label("Prompt").fill("something forbidden")
    page.get_by_role("button", name="Generate Image").click()
    expect(page.get_by_role("alert")).to_have_text("The image model refused this prompt. Change the prompt.")
    (tmp_path / "notes.txt").write_text("no image")
    page.get_by_label("Images").set_input_files([*files[:2], tmp_path / "notes.txt"])
    for path in files[:2]:
        expect(page.get_by_alt_text(path.name)).to_have_css("background-image", "none")
        assert page.get_by_alt_text(path.name).evaluate("image => image.naturalWidth") > 0
    refused = page.get_by_role("listitem").get_by_role("alert")
    expect(refused).to_contain_text("Unsupported image format. Use PNG, JPEG, GIF, WebP or AVIF.")
    assert len(stored(server)) == 3
    page.route("**/api/**", lambda route: route.abort())
    page.get_by_role("button", name="Generate Image").click()
    expect(page.get_by_role("alert").first).to_have_text(
        "The image server can’t be reached. Please try again."
    )
