"""The React example as its README has it: installed, built, and driven over its proxy."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chromium import is_required
from tests.browser.conftest import stored
from tests.browser.example import EXAMPLE, NPM, build, served
from tests.server.running import Running

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def built(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if NPM is None:
        missing = "npm is not installed (on Debian: apt-get install npm)"
        if is_required():
            pytest.fail(f"REQUIRE_BROWSER=1, but {missing}")
        pytest.skip(missing)
    return build(tmp_path_factory.mktemp("example"))


@pytest.fixture
def front_end(built: Path, server: Running) -> Iterator[str]:
    """The example's URL, over the server."""
    with served(built, server.url) as url:
        yield url


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((EXAMPLE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert len(packages) > 10
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert [name for name, package in packages.items() if name and "integrity" not in package] == []


def test_the_example(page: Page, front_end: str, server: Running, files: list[Path], tmp_path: Path) -> None:
    page.goto(front_end)
    page.get_by_role("button", name="Generate Image").click()
    generated = page.get_by_alt_text("A beautiful sunset over mountains")
    expect(generated).to_be_visible()
    expect(generated).to_have_js_property("naturalWidth", 1024)
    page.get_by_label("Prompt").fill("something forbidden")
    page.get_by_role("button", name="Generate Image").click()
    expect(page.get_by_role("alert")).to_have_text("The image model refused this prompt. Change the prompt.")
    (tmp_path / "notes.txt").write_text("no image")
    page.get_by_label("Images").set_input_files([*files[:2], tmp_path / "notes.txt"])
    for path in files[:2]:
        expect(page.get_by_alt_text(path.name)).to_have_js_property("naturalWidth", 40)
    refused = page.get_by_role("listitem").get_by_role("alert")
    expect(refused).to_contain_text("Unsupported image format. Use PNG, JPEG, GIF, WebP or AVIF.")
    assert len(stored(server)) == 3
    page.route("**/api/**", lambda route: route.abort())
    page.get_by_role("button", name="Generate Image").click()
    expect(page.get_by_role("alert").first).to_have_text(
        "The image server can’t be reached. Please try again."
    )
