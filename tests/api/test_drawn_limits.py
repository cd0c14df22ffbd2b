"""The limits of uploads and generated images: no image is paid for and then refused."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from marshmallow import ValidationError
from PIL import Image

from app import create_app
from app.api.schemas import is_size
from app.components import components_of
from app.config.settings import Config
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest
from app.services.drawing import MAX_SIDE_PIXELS
from tests.conftest import json_of
from tests.pictures import picture
from tests.services.generators import NAME

OURS, OPENAI = "/api/generate-image", "/v1/images/generations"


class GenerousGenerator(BaseGenerator):
    """Draws images of the size in its prompt, as files, whatever size is requested."""

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Draw a grey image."""
        width, height = map(int, request.prompt.split("x"))
        file = BytesIO()
        Image.new("L", (width, height)).save(file, "PNG")
        return GeneratedImage(file.getvalue(), "generous")


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the scripted generator records its calls."""
    monkeypatch.setenv("DRAWN", str(tmp_path / "drawn"))
    return tmp_path / "drawn"


def _client(config: Config, **settings: Any) -> Iterator[FlaskClient]:
    flask = create_app(replace(config, generator=NAME, **settings))
    yield flask.test_client()
    components_of(flask).cache.close()


@pytest.fixture
def jpeg_only(config: Config) -> Iterator[FlaskClient]:
    """A client of a server that accepts uploads of one format."""
    yield from _client(config, allowed_formats=("jpeg",))


@pytest.fixture
def small(config: Config) -> Iterator[FlaskClient]:
    """A client of a server that accepts images of a million pixels."""
    yield from _client(config, max_image_pixels=1_000_000)


@pytest.mark.parametrize("wanted", ["png", "jpeg", "gif", "webp", "avif"])
def test_allowed_formats_apply_to_uploads_only(jpeg_only: FlaskClient, wanted: str) -> None:
    answer = json_of(jpeg_only.post(OURS, json={"prompt": "a cat", "size": "64x64", "format": wanted}))
    assert answer["content_type"] == f"image/{wanted}"
    upload = jpeg_only.post("/api/images", data=picture("PNG"), content_type="image/png")
    assert upload.status_code == 415


@pytest.mark.parametrize("more", [{}, {"size": "1000x1001"}, {"size": "2048x2048"}])
def test_a_size_over_the_limit_is_refused_before_the_model_is_called(
    small: FlaskClient, drawn: Path, more: dict[str, str]
) -> None:
    response = small.post(OURS, json={"prompt": "a cat", **more})
    assert (response.status_code, json_of(response)["code"]) == (422, "too_many_pixels")
    assert "the limit is 1,000,000" in json_of(response)["message"]
    assert not drawn.exists()


def test_openais_api_reports_a_size_over_the_limit_in_its_format(small: FlaskClient, drawn: Path) -> None:
    response = small.post(OPENAI, json={"prompt": "a cat", "n": 2})
    assert response.status_code == 422
    assert json_of(response) == {
        "error": {
            "message": "The image has too many pixels: 1,024 × 1,024 = 1,048,576; the limit is 1,000,000.",
            "type": "invalid_request_error",
            "param": None,
            "code": "too_many_pixels",
        }
    }
    assert not drawn.exists()


def test_a_size_at_the_limit_is_drawn(small: FlaskClient, drawn: Path) -> None:
    assert small.post(OURS, json={"prompt": "a cat", "size": "1000x1000"}).status_code == 200
    assert len(drawn.read_text().splitlines()) == 1


@pytest.mark.parametrize(("given", "status"), [("2048x2048", 200), ("2048x2049", 502)])
def test_a_model_may_draw_a_larger_image_than_requested_up_to_a_limit(
    config: Config, given: str, status: int
) -> None:
    own = replace(config, generator=f"{__name__}:GenerousGenerator", max_image_pixels=1_000_000)
    flask = create_app(own)
    response = flask.test_client().post(OURS, json={"prompt": given, "size": "64x64"})
    assert response.status_code == status
    components_of(flask).cache.close()


def test_no_larger_size_can_be_requested() -> None:
    is_size(f"{MAX_SIDE_PIXELS}x{MAX_SIDE_PIXELS}")
    with pytest.raises(ValidationError):
        is_size(f"{MAX_SIDE_PIXELS + 1}x64")
