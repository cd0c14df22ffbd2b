"""The web page at `/`, the API page at `/docs`, and their assets.

This server serves everything that these pages load. There is no build step, no CDN and no inline script or
style, so the Content-Security-Policy can be strict.
"""

from importlib.resources import files
from pathlib import Path

from flask import (
    Blueprint,
    Response,
    render_template,
    request,
    send_from_directory,
)

from app.api.context import absolute_url, components
from app.core.objects import FORMATS

_CSP_TAIL = "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"

PAGE_CSP = f"default-src 'self'; img-src 'self' data: blob: https: http:; {_CSP_TAIL}"
"""The Content-Security-Policy of the page at `/`. Images may come from a bucket or a CDN of any origin, so
`img-src` allows `https:` and `http:`."""

DOCS_CSP = f"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; {_CSP_TAIL}"
"""The Content-Security-Policy of `/docs`. Swagger UI sets `style` attributes, and it uses `data:` URLs for
icons and `blob:` URLs for image responses."""

_MODULES = sorted(
    path.name
    for path in (Path(__file__).parent / "static/web").glob("*.js")
    if path.name not in ("app.js", "docs.js")
)
"""The JavaScript modules that `app.js` imports. The page preloads them, so that they load in parallel."""

SWAGGER_DIR = str(files("flask_swagger_ui") / "dist")

blueprint = Blueprint(
    "web",
    __name__,
    template_folder="templates",
    static_folder="static/web",
    static_url_path="/web",
)


@blueprint.get("/")
def index() -> str:
    """Return the page for generating, uploading and browsing images, which also shows cache statistics."""
    return render_template(
        "web/index.html",
        formats=FORMATS.values(),
        modules=_MODULES,
        api=absolute_url("/api/images"),
        settings=components().config,
    )


@blueprint.get("/docs")
def docs() -> str:
    """Return Swagger UI for `/openapi.json`."""
    return render_template("web/docs.html")


@blueprint.get("/docs/assets/<path:filename>")
def docs_asset(filename: str) -> Response:
    """Return a file of Swagger UI. `send_from_directory` returns 404 for paths outside the directory."""
    return send_from_directory(SWAGGER_DIR, filename)


@blueprint.get("/favicon.ico")
@blueprint.get("/favicon.svg")
def favicon() -> Response:
    """Return the icon. Even requests for `favicon.ico` get the SVG: browsers go by its Content-Type."""
    return blueprint.send_static_file("favicon.svg")


@blueprint.after_request
def add_security_headers(response: Response) -> Response:
    """Add headers that restrict what these pages can load and forbid showing them in frames."""
    on_docs = request.endpoint == f"{blueprint.name}.{docs.__name__}"
    response.headers["Content-Security-Policy"] = DOCS_CSP if on_docs else PAGE_CSP
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
