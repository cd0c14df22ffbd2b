"""The web page at `/`, the API page at `/docs` and their assets.

Everything a browser loads from here comes from this server: no build step, no CDN, no
inline script or style, so that the Content-Security-Policy can be strict.
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
"""Images come from the bucket or a CDN, whose origin is a setting: hence `https:` and `http:`."""

DOCS_CSP = f"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; {_CSP_TAIL}"
"""Swagger UI sets `style` attributes, has its icons as `data:` and shows an image answer as a `blob:`."""

_MODULES = sorted(
    path.name
    for path in (Path(__file__).parent / "static/web").glob("*.js")
    if path.name not in ("app.js", "docs.js")
)
"""What the page's script imports; announced at once, so that none waits for the one that names it."""

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
    """The page: type a prompt or drop an image, see what is stored and what the cache saves."""
    api = absolute_url("/api/images")
    return render_template(
        "web/index.html",
        formats=FORMATS.values(),
        modules=_MODULES,
        api=api,
        settings=components().config,
    )


@blueprint.get("/docs")
def docs() -> str:
    """Swagger UI over `/openapi.json`."""
    return render_template("web/docs.html")


@blueprint.get("/docs/assets/<path:filename>")
def docs_asset(filename: str) -> Response:
    """A file of Swagger UI; `send_from_directory` answers 404 to whatever leads out of its folder."""
    return send_from_directory(SWAGGER_DIR, filename)


@blueprint.get("/favicon.ico")
@blueprint.get("/favicon.svg")
def favicon() -> Response:
    """The icon. Clients that ask for `.ico` unprompted get the SVG too: they go by its type."""
    return blueprint.send_static_file("favicon.svg")


@blueprint.after_request
def add_security_headers(response: Response) -> Response:
    """Say what a browser may load and do on these pages, and that they can't be framed."""
    on_docs = request.endpoint == f"{blueprint.name}.{docs.__name__}"
    response.headers["Content-Security-Policy"] = DOCS_CSP if on_docs else PAGE_CSP
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
