"""Errors have one JSON shape, whatever raised them: wrong URLs, wrong methods, bugs."""

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.components import components_of
from tests.conftest import json_of


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        ("GET", "/nothing", 404, "not_found", None),
        ("GET", "/api", 404, "not_found", None),
        ("POST", "/api/images/a.png", 405, "method_not_allowed", {"DELETE", "GET", "HEAD", "OPTIONS"}),
        ("PUT", "/api/images", 405, "method_not_allowed", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("GET", "/api/generate-image", 405, "method_not_allowed", {"OPTIONS", "POST"}),
        ("BREW", "/api/images", 405, "method_not_allowed", {"GET", "HEAD", "OPTIONS", "POST"}),
    ],
)
def test_wrong_urls_are_404_and_wrong_methods_405(
    client: FlaskClient, method: str, path: str, status: int, code: str, allow: set[str] | None
) -> None:
    response = client.open(path, method=method)
    answer = json_of(response)
    assert (response.status_code, answer["code"], answer["success"]) == (status, code, False)
    assert set(answer) == {"success", "message", "code"}
    if allow:
        assert set(response.headers["Allow"].split(", ")) == allow


@pytest.mark.crashes
def test_an_unexpected_exception_is_logged_and_not_shown(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(components_of(app).store, "list", fail)
    response = client.get("/api/images")
    assert response.status_code == 500
    assert json_of(response) == {
        "success": False,
        "message": "Internal server error. Please try again.",
        "code": "internal_error",
    }
    assert "/secret/path" in caplog.text
