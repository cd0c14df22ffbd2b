"""POST /api/generate-image."""

import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.errors import GeneratorTimeout, PromptRefused
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest
from tests.conftest import json_of
from tests.contracts import GeneratorContract
from tests.pictures import picture

URL = "/api/generate-image"
PROMPT = {"prompt": "A beautiful sunset over mountains", "size": "128x96"}


class CustomGenerator(BaseGenerator):
    """A generator as a user would write it. The prompt says what it does."""

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Do what the prompt says."""
        match request.prompt:
            case "refuse":
                raise PromptRefused
            case "stall":
                raise GeneratorTimeout
            case "crash":
                raise ValueError("secret detail")
            case "svg":
                return GeneratedImage(b"<svg/>", "own")
            case "nothing":
                return None  # type: ignore[return-value]
            case "bytes":
                return GeneratedImage(picture("JPEG", (30, 20)), "own")
        return GeneratedImage(Image.new("RGBA", (request.width, request.height), "teal"), "own")


class TestCustomGenerator(GeneratorContract):
    """The contract of generators, for a user's generator."""

    @pytest.fixture
    def generator(self) -> BaseGenerator:
        """A new generator."""
        return CustomGenerator()


@pytest.fixture
def own(config: Config) -> Iterator[FlaskClient]:
    """A client of a server with the user's generator."""
    flask = create_app(replace(config, generator="tests.api.test_generate:CustomGenerator"))
    yield flask.test_client()
    components_of(flask).cache.close()


def test_a_prompt_gets_an_image_url_that_serves_the_image(client: FlaskClient) -> None:
    response = client.post(URL, json={"prompt": "A beautiful sunset over mountains"})
    answer = json_of(response)
    assert response.status_code == 200
    assert answer["success"] is True
    assert answer["message"] == "Image generated and uploaded successfully"
    assert re.fullmatch(r"generated/\d{4}/\d\d/\d{8}_\d{6}_[0-9a-f]{24}\.png", answer["key"])
    assert answer["image_url"] == f"http://localhost/api/images/{answer['key']}"
    assert (answer["content_type"], answer["width"], answer["height"]) == ("image/png", 1024, 1024)
    assert answer["model"] == "builtin"
    assert answer["variants"]["thumb"] == f"{answer['image_url']}/thumb"
    assert f"{answer['image_url']}/w960 960w" in answer["variants"]["srcset"]
    described = json_of(client.get(f"{answer['image_url']}/info"))
    for name in ("width", "height", "frames", "has_alpha", "thumbhash", "variants"):
        assert answer[name] == described[name]
    with client.get(answer["image_url"]) as served, Image.open(BytesIO(served.data)) as image:
        assert (image.format, image.size) == ("PNG", (1024, 1024))
        assert served.content_type == "image/png"
        assert len(served.data) == answer["bytes"]


def test_a_seed_draws_the_same_image_under_another_key(client: FlaskClient) -> None:
    answers = [json_of(client.post(URL, json={**PROMPT, "seed": 7})) for _ in range(2)]
    images = []
    for answer in answers:
        with client.get(answer["image_url"]) as served:
            images.append(served.data)
    assert images[0] == images[1]
    assert answers[0]["key"] != answers[1]["key"]
    assert answers[0]["seed"] == 7


def test_the_seed_in_the_response_draws_the_image_again(client: FlaskClient) -> None:
    first = json_of(client.post(URL, json=PROMPT))
    again = json_of(client.post(URL, json={**PROMPT, "seed": first["seed"]}))
    with client.get(first["image_url"]) as one, client.get(again["image_url"]) as other:
        assert one.data == other.data


@pytest.mark.parametrize(
    ("image_format", "content_type"),
    [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp"), ("avif", "image/avif")],
)
def test_every_format_can_be_requested(client: FlaskClient, image_format: str, content_type: str) -> None:
    answer = json_of(client.post(URL, json={**PROMPT, "format": image_format, "folder": "users/9"}))
    assert answer["content_type"] == content_type
    assert answer["key"].startswith("users/9/")
    assert (answer["width"], answer["height"]) == (128, 96)


@pytest.mark.parametrize("prompt", ["猫と月", "🌋", "x" * 10_000, "a\0b", "\u202e evil", "' OR 1=1 --"])
def test_prompts_may_contain_any_characters(client: FlaskClient, prompt: str) -> None:
    response = client.post(URL, json={"prompt": prompt, "size": "64x64"})
    assert response.status_code == 200, json_of(response)


BAD_BODIES: list[tuple[Any, int]] = [
    (b"", 400),
    (b"{", 400),
    (b"\xff\xfe", 400),
    (b"[]", 400),
    (b'"prompt"', 400),
    (b"null", 400),
    (b"7", 400),
    (b"{}", 400),
    (b'{"prompt": ""}', 400),
    (b'{"prompt": "  \\n "}', 400),
    (b'{"prompt": 7}', 400),
    (b'{"prompt": null}', 400),
    (b'{"prompt": ["a"]}', 400),
    (b'{"prompt": {"a": "b"}}', 400),
    (b'{"prompt": "\\ud800"}', 400),
    (b'{"prompt": "' + b"x" * 10_001 + b'"}', 400),
    (b'{"prompt": "' + b"x" * 1_000_000 + b'"}', 413),
    (b"[" * 100_000, 400),
    (b'{"prompt": ' + b"9" * 5000 + b"}", 400),
    (b'{"prompt": "a", "colour": "red"}', 400),
    (b'{"prompt": "a", "size": "big"}', 400),
    (b'{"prompt": "a", "size": "0x0"}', 400),
    (b'{"prompt": "a", "size": "9999x9999"}', 400),
    (b'{"prompt": "a", "size": "1024x1024\\n"}', 400),
    (b'{"prompt": "a", "size": 1024}', 400),
    (b'{"prompt": "a", "format": "svg"}', 400),
    (b'{"prompt": "a", "seed": -1}', 400),
    (b'{"prompt": "a", "seed": 4294967296}', 400),
    (b'{"prompt": "a", "seed": 1.5}', 400),
    (b'{"prompt": "a", "seed": Infinity}', 400),
    (b'{"prompt": "a", "seed": "x"}', 400),
    (b'{"prompt": "a", "folder": "../.."}', 400),
    (b'{"prompt": "a", "folder": 3}', 400),
    (b'{"prompt": "a", "negative_prompt": "\\udfff"}', 400),
]


@pytest.mark.parametrize(("body", "status"), BAD_BODIES)
def test_invalid_bodies_are_refused(client: FlaskClient, app: Flask, body: bytes, status: int) -> None:
    response = client.post(URL, data=body, content_type="application/json")
    answer = json_of(response)
    assert response.status_code == status, answer
    assert (answer["success"], set(answer)) == (False, {"success", "message", "code"})
    assert components_of(app).store.list().objects == ()


def test_the_message_names_the_field(client: FlaskClient) -> None:
    answer = json_of(client.post(URL, json={"size": "big"}))
    assert answer["code"] == "bad_request"
    assert "prompt: Missing data for required field." in answer["message"]
    assert "size: Must be like 1024x1024" in answer["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_json_requires_its_content_type(client: FlaskClient, content_type: str | None) -> None:
    response = client.post(URL, data='{"prompt": "a"}', content_type=content_type)
    assert response.status_code == 400
    assert "Content-Type: application/json" in json_of(response)["message"]


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}")])
@pytest.mark.parametrize(("levels", "status"), [(31, 200), (32, 400), (900, 400), (980, 400), (9_000, 400)])
def test_the_depth_of_json_is_limited(
    client: FlaskClient, opening: str, closing: str, levels: int, status: int
) -> None:
    """The body itself is the first of 32 levels, independent of the interpreter's stack."""
    deep = opening * levels + ("1" if closing == "}" else "") + closing * levels
    body = f'{{"prompt": "a sea", "size": "64x64", "n": 1, "user": {deep}}}'
    response = client.post("/v1/images/generations", data=body, content_type="application/json")
    assert response.status_code == status
    if status == 400:
        told = json_of(response)["error"]
        assert told["code"] == "invalid_value"
        assert told["message"] == "The JSON body exceeds the limit of 32 nested lists and objects."


def test_brackets_in_a_string_are_not_counted_as_levels(client: FlaskClient) -> None:
    assert client.post(URL, json={"prompt": "[{" * 100, "size": "64x64"}).status_code == 200


@pytest.mark.parametrize(
    ("prompt", "status", "code"),
    [
        ("refuse", 422, "prompt_refused"),
        ("stall", 504, "generator_timeout"),
        ("crash", 502, "generator_error"),
        ("svg", 502, "generator_error"),
        ("nothing", 502, "generator_error"),
    ],
)
def test_failures_of_a_generator_are_errors(own: FlaskClient, prompt: str, status: int, code: str) -> None:
    response = own.post(URL, json={"prompt": prompt})
    assert (response.status_code, json_of(response)["code"]) == (status, code)
    assert "secret detail" not in response.text


def test_a_generator_may_return_an_encoded_image(own: FlaskClient) -> None:
    answer = json_of(own.post(URL, json={"prompt": "bytes"}))
    assert (answer["content_type"], answer["width"], answer["height"]) == ("image/jpeg", 30, 20)
    assert answer["key"].endswith(".jpg")


def test_a_generator_may_return_a_pillow_image(own: FlaskClient) -> None:
    answer = json_of(own.post(URL, json={"prompt": "teal", "size": "70x80", "format": "jpeg"}))
    assert (answer["content_type"], answer["width"], answer["height"]) == ("image/jpeg", 70, 80)
    assert answer["model"] == "own"
