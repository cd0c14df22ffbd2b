"""The API compatible with OpenAI's (/v1), called with OpenAI's own client, and its responses in full."""

import base64
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from flask.testing import FlaskClient
from PIL import Image

from app import create_app
from app.components import components_of
from app.config.api_keys import parse_keys
from app.config.settings import Config
from app.services import slots
from app.services.slots import Slots
from tests.conftest import json_of
from tests.live import live
from tests.services.generators import NAME

MODEL = "test/scripted-1:0"
URL = "/v1/images/generations"


@pytest.fixture
def server(config: Config) -> Iterator[str]:
    """The URL of a server with two keys and the scripted generator."""
    flask = create_app(
        replace(config, api_keys=parse_keys("first-key,second-key"), generator=NAME, generate_concurrency=4)
    )
    with live(flask) as url:
        yield url
    components_of(flask).cache.close()


@pytest.fixture
def client(server: str) -> Iterator[openai.OpenAI]:
    """OpenAI's client, without its retries."""
    with openai.OpenAI(base_url=f"{server}/v1", api_key="first-key", max_retries=0) as made:
        yield made


@pytest.fixture
def flask_client(config: Config) -> Iterator[FlaskClient]:
    """Flask's test client, of a server without keys."""
    flask = create_app(replace(config, generator=NAME))
    yield flask.test_client()
    components_of(flask).cache.close()


def _image(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def test_response_format_url_gives_a_url_of_the_image(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt="a cat", model=MODEL, size="96x64", response_format="url")
    assert answer.data
    assert answer.data[0].b64_json is None
    assert answer.data[0].url
    fetched = requests.get(answer.data[0].url, timeout=10)
    assert (fetched.status_code, fetched.headers["Content-Type"]) == (200, "image/png")
    assert _image(fetched.content).size == (96, 64)
    assert (answer.size, answer.output_format) == ("96x64", "png")


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_response_format_b64_json_gives_the_images_bytes(client: openai.OpenAI, output_format: Any) -> None:
    answer = client.images.generate(
        prompt="a cat", size="64x64", response_format="b64_json", output_format=output_format
    )
    assert answer.data
    assert answer.data[0].url is None
    assert answer.data[0].b64_json
    image = _image(base64.b64decode(answer.data[0].b64_json))
    assert (image.format, image.size) == (output_format.upper(), (64, 64))
    assert answer.output_format == output_format


@pytest.mark.parametrize("response_format", ["url", "b64_json"])
def test_fields_that_openais_api_lacks_reach_its_clients(client: openai.OpenAI, response_format: Any) -> None:
    answer = client.images.generate(prompt="a cat", size="96x64", response_format=response_format)
    assert answer.data
    more = answer.data[0].model_extra
    assert more
    assert (more["width"], more["height"]) == (96, 64)
    assert 5 <= len(base64.b64decode(more["thumbhash"])) <= 30
    fetched = requests.get(f"{more['variants']['thumb']}.webp", timeout=10)
    assert (fetched.status_code, fetched.headers["Content-Type"]) == (200, "image/webp")


def test_openais_other_options_are_accepted(client: openai.OpenAI) -> None:
    answer = client.images.generate(
        prompt="a cat",
        model=None,
        size="auto",
        quality="high",
        background="opaque",
        moderation="low",
        style="vivid",
        user="u-1",
        n=None,
    )
    assert answer.data
    assert answer.data[0].b64_json
    assert requests.get(answer.data[0].url or "", timeout=10).content == base64.b64decode(
        answer.data[0].b64_json
    )
    assert answer.size == "1024x1024"


def test_options_accept_null_as_the_document_says(flask_client: FlaskClient) -> None:
    described = json_of(flask_client.get("/openapi.json"))["components"]["schemas"]["ImagesRequest"]
    body = {"prompt": "a cat", "size": "64x64", "response_format": "url"}
    for name, field in described["properties"].items():
        answer = flask_client.post(URL, json={**body, name: None})
        assert (name, answer.status_code == 200) == (name, field.get("nullable", False))


@pytest.mark.parametrize(
    ("stream", "status"), [(False, 200), (True, 400), (0, 400), (0.0, 400), ("off", 400), ("", 400)]
)
def test_stream_must_be_false(flask_client: FlaskClient, stream: object, status: int) -> None:
    body = {"prompt": "a cat", "size": "64x64", "response_format": "url", "stream": stream}
    assert flask_client.post(URL, json=body).status_code == status


def test_n_images_differ(client: openai.OpenAI) -> None:
    answer = client.images.generate(prompt="a cat", size="64x64", n=4, extra_body={"seed": 2**32 - 2})
    assert answer.data
    assert len({image.b64_json for image in answer.data}) == len({image.url for image in answer.data}) == 4


def test_n_may_exceed_the_concurrency(config: Config) -> None:
    flask = create_app(replace(config, generator=NAME, generate_concurrency=1))
    answer = flask.test_client().post(URL, json={"prompt": "a cat", "size": "64x64", "n": 3})
    assert len(json_of(answer)["data"]) == 3
    components_of(flask).cache.close()


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.model_dump(exclude_none=True) == {
        "id": MODEL,
        "object": "model",
        "created": 0,
        "owned_by": "s3-image-server",
    }
    assert client.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-image-2")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("options", "error", "code", "kind", "param"),
    [
        (
            {"prompt": "refuse"},
            openai.BadRequestError,
            "moderation_blocked",
            "image_generation_user_error",
            None,
        ),
        ({"prompt": ""}, openai.BadRequestError, "invalid_value", "invalid_request_error", "prompt"),
        (
            {"prompt": "a", "size": "7x7"},
            openai.BadRequestError,
            "invalid_value",
            "invalid_request_error",
            "size",
        ),
        ({"prompt": "a", "n": 5}, openai.BadRequestError, "invalid_value", "invalid_request_error", "n"),
        (
            {"prompt": "a", "output_format": "svg"},
            openai.BadRequestError,
            "invalid_value",
            "invalid_request_error",
            "output_format",
        ),
        (
            {"prompt": "a", "stream": True},
            openai.BadRequestError,
            "invalid_value",
            "invalid_request_error",
            "stream",
        ),
        (
            {"prompt": "a", "extra_body": {"colour": 1}},
            openai.BadRequestError,
            "invalid_value",
            "invalid_request_error",
            "colour",
        ),
        (
            {"prompt": "a", "model": "dall-e-3"},
            openai.NotFoundError,
            "model_not_found",
            "invalid_request_error",
            None,
        ),
        ({"prompt": "fail"}, openai.InternalServerError, "generator_unreachable", "server_error", None),
    ],
)
def test_errors_map_to_openais_exceptions(
    client: openai.OpenAI,
    options: dict[str, Any],
    error: type[openai.APIStatusError],
    code: str,
    kind: str,
    param: str | None,
) -> None:
    with pytest.raises(error) as caught:
        client.images.generate(**options)
    assert (caught.value.code, caught.value.type, caught.value.param) == (code, kind, param)
    assert "secret" not in str(caught.value)


def test_a_refused_prompt_has_the_reason(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="No teapots, please"):
        client.images.generate(prompt="refuse")


@pytest.mark.parametrize("key", ["wrong", "first-keyx"])
def test_a_wrong_key_is_an_authentication_error(client: openai.OpenAI, key: str) -> None:
    refused = client.with_options(api_key=key)
    with pytest.raises(openai.AuthenticationError) as caught:
        refused.models.list()
    assert caught.value.code == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError) as caught:
        refused.images.generate(prompt="a cat")
    assert caught.value.response.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_busy_server_is_a_rate_limit_error(
    client: openai.OpenAI, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_WAIT_SECONDS", 0.1)
    with (
        Slots(config.state_dir / "slots", 4).take(4),
        pytest.raises(openai.RateLimitError) as caught,
    ):
        client.images.generate(prompt="a cat")
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert caught.value.response.headers["Retry-After"] == "5"


def test_an_idempotency_key_repeats_the_response(
    client: openai.OpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAWN", str(tmp_path / "drawn"))
    header = {"Idempotency-Key": "one"}
    first, again = (
        client.images.generate(prompt="a cat", size="64x64", n=2, extra_headers=header) for _ in range(2)
    )
    assert first == again
    assert len((tmp_path / "drawn").read_text().splitlines()) == 2
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.images.generate(prompt="a dog", extra_headers=header)
    assert caught.value.code == "idempotency_key_reused"


def test_without_keys_local_clients_may_send_any_key(config: Config) -> None:
    flask = create_app(replace(config, generator=NAME))
    with live(flask) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        assert [model.id for model in client.models.list()] == [MODEL]
    components_of(flask).cache.close()


def test_the_response_in_full(flask_client: FlaskClient) -> None:
    answer = json_of(
        flask_client.post(URL, json={"prompt": "a cat", "size": "64x64", "response_format": "url"})
    )
    assert (
        abs(
            answer.pop("created")
            - components_of(flask_client.application).store.list().objects[0].last_modified.timestamp()
        )
        < 3
    )
    url = f"http://localhost/api/images/{components_of(flask_client.application).store.list().objects[0].key}"
    (data,) = answer.pop("data")
    assert 5 <= len(base64.b64decode(data.pop("thumbhash"))) <= 30
    assert data == {
        "url": url,
        "width": 64,
        "height": 64,
        "variants": {"thumb": f"{url}/thumb", "card": f"{url}/card", "srcset": f"{url}/w64 64w"},
    }
    assert answer == {"output_format": "png", "size": "64x64"}


def _error(message: str, kind: str, param: str | None, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        (
            "POST",
            URL,
            {"prompt": "refuse"},
            400,
            _error("No teapots, please.", "image_generation_user_error", None, "moderation_blocked"),
        ),
        (
            "POST",
            URL,
            [],
            400,
            _error("Send a JSON object.", "invalid_request_error", None, "invalid_value"),
        ),
        (
            "GET",
            URL,
            None,
            405,
            _error(
                "This URL does not support this method.", "invalid_request_error", None, "method_not_allowed"
            ),
        ),
        (
            "GET",
            "/v1/nothing",
            None,
            404,
            _error(
                "There is nothing at this URL. See /docs for the available calls.",
                "invalid_request_error",
                None,
                "not_found",
            ),
        ),
    ],
)
def test_error_responses_in_full(
    flask_client: FlaskClient, method: str, path: str, body: Any, status: int, error: dict[str, Any]
) -> None:
    response = flask_client.open(path, method=method, json=body)
    assert (response.status_code, json_of(response)) == (status, error)


def test_the_document_describes_openais_errors(flask_client: FlaskClient) -> None:
    document = json_of(flask_client.get("/openapi.json"))
    calls = document["paths"]
    for call in (calls[URL]["post"], calls["/v1/models"]["get"], calls["/v1/models/{model}"]["get"]):
        content = call["responses"]["default"]["content"]["application/json"]
        assert content == {"schema": {"$ref": "#/components/schemas/OpenAIError"}}
    assert "422" not in calls[URL]["post"]["responses"]
    assert {"ImagesRequest", "ImagesResponse", "ModelList"} <= set(document["components"]["schemas"])
    (header,) = calls[URL]["post"]["parameters"]
    assert (header["in"], header["name"], header["required"]) == ("header", "Idempotency-Key", False)


def test_after_a_timeout_clients_should_not_retry(
    flask_client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components_of(flask_client.application).generation, "_timeout", 0.05)
    response = flask_client.post(URL, json={"prompt": "slow 1"})
    assert (response.status_code, response.headers["X-Should-Retry"]) == (504, "false")
    assert json_of(response)["error"]["code"] == "generator_timeout"
