"""The page, the API documentation page and their assets."""

from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.objects import FORMATS
from app.web import DOCS_CSP, PAGE_CSP

WEB_PACKAGE = Path(__file__).parents[2] / "app/web"
PAGES = ["/", "/docs"]
SERVED_BY_API = {"/readyz", "/openapi.json"}
MAX_TOTAL_BYTES = 64_000
"""2,700 of them are the decoder of the placeholders that the page shows while thumbnails load."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """One application for all tests here, which only read."""
    root = tmp_path_factory.mktemp("web")
    directories = {name: str(root / name) for name in ("CACHE_DIR", "LOCAL_STORE_DIR", "STATE_DIR")}
    flask = create_app(Config.from_env(directories))
    yield flask
    components_of(flask).cache.close()


class Page(HTMLParser):
    """The tags of an HTML page, and the text inside its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"} and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def values(self, *names: str) -> set[str]:
        """Return the values of these attributes, of all tags."""
        found = {attrs.get(name) for _, attrs in self.tags for name in names}
        return {value for value in found if value}

    def urls(self) -> set[str]:
        """Return the URLs that the page loads or links to, without those of its own fragments."""
        return {url for url in self.values("src", "href") if not url.startswith("#")}


def load_page(client: FlaskClient, path: str) -> Page:
    return Page(client.get(path).get_data(as_text=True))


@pytest.mark.parametrize("path", PAGES)
def test_pages_answer_html(client: FlaskClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.content_type == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("path", "policy"),
    [("/", PAGE_CSP), ("/docs", DOCS_CSP), ("/web/app.js", PAGE_CSP), ("/docs/assets/none", PAGE_CSP)],
)
def test_every_response_has_the_security_headers(client: FlaskClient, path: str, policy: str) -> None:
    with client.get(path) as response:
        assert response.headers["Content-Security-Policy"] == policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("policy", [PAGE_CSP, DOCS_CSP])
def test_policies_forbid_foreign_and_inline_scripts(policy: str) -> None:
    directives = dict(directive.strip().split(" ", 1) for directive in policy.split(";"))
    assert directives["default-src"] == "'self'"
    assert "script-src" not in directives
    assert directives["object-src"] == directives["base-uri"] == directives["frame-ancestors"] == "'none'"


@pytest.mark.parametrize("path", PAGES)
def test_pages_have_no_inline_scripts_or_styles(client: FlaskClient, path: str) -> None:
    page = load_page(client, path)
    assert page.inline == []
    assert not [attrs for tag, attrs in page.tags if tag == "script" and "src" not in attrs]
    assert not [tag for tag, _ in page.tags if tag == "style"]
    assert not [name for _, attrs in page.tags for name in attrs if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("path", PAGES)
def test_every_url_in_a_page_is_served(client: FlaskClient, path: str) -> None:
    urls = load_page(client, path).urls()
    assert urls, "the parser found no URL"
    for url in urls - SERVED_BY_API:
        with client.get(url) as response:
            assert (url, response.status_code) == (url, 200)


def test_every_id_that_the_page_refers_to_exists(client: FlaskClient) -> None:
    page = load_page(client, "/")
    fragments = {url[1:] for url in page.values("href") - page.urls()}
    references = page.values("for", "list", "aria-labelledby", "aria-describedby")
    assert fragments, "the first paint waits for an element"
    assert (fragments | set(" ".join(references).split())) - page.values("id") == set()


def test_urls_in_pages_have_the_mount_point(client: FlaskClient) -> None:
    text = client.get("/", environ_overrides={"SCRIPT_NAME": "/images"}).get_data(as_text=True)
    assert all(url.startswith("/images/") for url in Page(text).urls())


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000/images/api/images"),
        ("made-up.example", "/images/api/images"),
    ],
)
def test_the_page_names_only_trusted_hosts(app: Flask, host: str, url: str) -> None:
    client = app.test_client()
    page = client.get("/", headers={"Host": host}, environ_overrides={"SCRIPT_NAME": "/images"})
    assert f"<code>curl -F image=@cat.jpg {url}</code>" in page.get_data(as_text=True)
    assert "made-up" not in page.get_data(as_text=True)


def test_every_imported_module_exists(client: FlaskClient) -> None:
    scripts = sorted((WEB_PACKAGE / "static/web").glob("*.js"))
    imports = [
        line.rsplit('"', 2)[1].removeprefix("./")
        for script in scripts
        for line in script.read_text(encoding="utf-8").splitlines()
        if line.startswith("import ")
    ]
    assert imports
    assert set(imports) <= {script.name for script in scripts}


def test_every_module_is_preloaded(client: FlaskClient) -> None:
    """So that none waits for the module that imports it."""
    preloaded = {
        str(attrs["href"]) for _, attrs in load_page(client, "/").tags if attrs.get("rel") == "modulepreload"
    }
    modules = {f"/web/{script.name}" for script in (WEB_PACKAGE / "static/web").glob("*.js")}
    assert preloaded == modules - {"/web/app.js", "/web/docs.js"}


@pytest.mark.parametrize(("timeout", "seconds"), [(120, "135"), (600, "615")])
def test_the_page_waits_15_seconds_longer_than_the_generator_timeout(
    config: Config, timeout: int, seconds: str
) -> None:
    flask = create_app(replace(config, generator_timeout=timeout))
    page = load_page(flask.test_client(), "/")
    assert [attrs["data-seconds"] for _, attrs in page.tags if "data-seconds" in attrs] == [seconds]
    components_of(flask).cache.close()


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/favicon.ico", "image/svg+xml; charset=utf-8"),
        ("/favicon.svg", "image/svg+xml; charset=utf-8"),
        ("/web/app.css", "text/css; charset=utf-8"),
        ("/web/app.js", "text/javascript; charset=utf-8"),
        ("/docs/assets/swagger-ui.css", "text/css; charset=utf-8"),
        ("/docs/assets/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    ],
)
def test_assets_have_their_content_type(client: FlaskClient, path: str, content_type: str) -> None:
    with client.get(path) as response:
        assert (response.status_code, response.content_type) == (200, content_type)


@pytest.mark.parametrize("root", ["/docs/assets/", "/web/"])
@pytest.mark.parametrize(
    "escape",
    ["../__init__.py", "..%2f__init__.py", "%2e%2e/__init__.py", "a/../../__init__.py", "/etc/passwd"],
)
def test_files_outside_the_asset_folders_are_not_served(client: FlaskClient, root: str, escape: str) -> None:
    assert client.get(root + escape).status_code in {308, 404}
    assert client.get(root + escape, follow_redirects=True).status_code == 404


def test_the_file_input_accepts_every_format(client: FlaskClient) -> None:
    [accept] = [
        attrs["accept"] for tag, attrs in load_page(client, "/").tags if tag == "input" and "accept" in attrs
    ]
    assert accept is not None
    assert accept.split(",") == [known.content_type for known in FORMATS.values()]


def test_the_page_has_the_upload_limit(client: FlaskClient) -> None:
    limits = [
        attrs["data-max-bytes"] for _, attrs in load_page(client, "/").tags if "data-max-bytes" in attrs
    ]
    assert limits == [str(10 * 1024**2)]


def test_every_field_has_a_label(client: FlaskClient) -> None:
    tags = load_page(client, "/").tags
    labelled = {attrs.get("for") for tag, attrs in tags if tag == "label"}
    fields = {attrs["id"] for tag, attrs in tags if tag in {"input", "select", "textarea"} and "id" in attrs}
    assert fields == labelled == {"prompt", "size", "files", "folder", "key"}


def test_the_files_of_the_page_are_small() -> None:
    files = [
        path
        for folder in ("static", "templates")
        for path in (WEB_PACKAGE / folder).rglob("*")
        if path.is_file()
    ]
    assert sum(path.stat().st_size for path in files) < MAX_TOTAL_BYTES
