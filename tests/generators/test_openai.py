"""What is specific to OpenAI: the request, error codes, and images at a URL."""

import base64
from typing import Any

import pytest

from app.core.errors import (
    AppError,
    GeneratorError,
    GeneratorRefused,
    GeneratorTimeout,
    GeneratorUnreachable,
    PromptRefused,
)
from app.generators.base import GenerationRequest
from app.generators.openai import OpenAIGenerator, url_on_same_server
from tests.providers import API_KEY, IMAGE, OPENAI, Behaviour, ModelServer, answer, reset, stall, trickle_body

REQUEST = GenerationRequest("a red boat ⛵", 1600, 900, seed=1)


def _generator(models: ModelServer, model: str = OPENAI.model, **more: Any) -> OpenAIGenerator:
    return OpenAIGenerator(
        model, **{"api_key": API_KEY, "base_url": f"{models.url}/v1", "timeout": 30, **more}
    )


def test_the_request_to_a_gpt_model(models: ModelServer) -> None:
    models.script = [OPENAI.success()]
    drawn = _generator(models).generate(REQUEST)
    (received,) = models.received
    assert (drawn.image, drawn.model, drawn.seed) == (IMAGE, OPENAI.model, None)
    assert received.uri == "/v1/images/generations"
    assert received.headers["authorization"] == f"Bearer {API_KEY}"
    assert received.headers["accept"] == received.headers["content-type"] == "application/json"
    assert received.headers["accept-encoding"] == "identity"
    assert received.headers["user-agent"] == "s3-image-server"
    assert received.json == {
        "model": OPENAI.model,
        "prompt": "a red boat ⛵",
        "n": 1,
        "size": "1600x912",
        "output_format": "png",
    }


@pytest.mark.parametrize(
    ("asked", "sent"),
    [("png", "png"), ("jpeg", "jpeg"), ("webp", "webp"), ("gif", "png"), ("avif", "png")],
)
def test_the_file_format_is_one_that_the_model_supports(models: ModelServer, asked: str, sent: str) -> None:
    models.script = [OPENAI.success()]
    _generator(models).generate(GenerationRequest("sea", 64, 64, seed=1, image_format=asked))
    assert models.received[0].json["output_format"] == sent


def test_the_request_to_a_model_of_a_different_provider(models: ModelServer) -> None:
    models.script = [OPENAI.success()]
    request = GenerationRequest("sea", 500, 300, seed=1, negative_prompt="people, boats")
    _generator(models, "stablediffusion", api_key="").generate(request)
    assert models.received[0].json == {
        "model": "stablediffusion",
        "prompt": "sea\n\nLeave out: people, boats",
        "n": 1,
        "size": "512x304",
        "response_format": "b64_json",
    }


@pytest.mark.parametrize(
    ("base_url", "uri"),
    [
        ("{}/v1/", "/v1/images/generations"),
        ("{}", "/images/generations"),
        ("{}/a b/größe/v1", "/a%20b/gr%C3%B6%C3%9Fe/v1/images/generations"),
        ("{}/v1?api-version=2#part", "/v1/images/generations?api-version=2"),
    ],
)
def test_the_path_is_appended_to_the_base_url(models: ModelServer, base_url: str, uri: str) -> None:
    models.script = [OPENAI.success()]
    _generator(models, base_url=base_url.format(models.url)).generate(REQUEST)
    assert models.received[0].uri == uri


def test_user_and_password_in_the_base_url_are_sent(models: ModelServer) -> None:
    models.script = [OPENAI.success()]
    _generator(models, base_url=models.url.replace("//", "//user:p%40ss@")).generate(REQUEST)
    assert models.received[0].headers["authorization"] == f"Basic {base64.b64encode(b'user:p@ss').decode()}"
    assert models.received[0].headers["host"] == models.url.removeprefix("http://")


def test_variables_of_openais_clients_become_headers(
    models: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Api-Key: abc\nUser-Agent: ours/1:2\nnot a header")
    models.script = [OPENAI.success()]
    _generator(models).generate(REQUEST)
    sent = models.received[0].headers
    assert (sent["openai-organization"], sent["openai-project"]) == ("org-1", "proj-1")
    assert (sent["api-key"], sent["user-agent"]) == ("abc", "ours/1:2")


def test_half_of_a_surrogate_pair_in_a_prompt_is_replaced(models: ModelServer) -> None:
    models.script = [OPENAI.success()]
    _generator(models).generate(GenerationRequest("a \ud83d boat", 64, 64, seed=1))
    assert models.received[0].json["prompt"] == "a ? boat"


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:99999/v1", "ftp://127.0.0.1/v1"])
def test_an_unusable_base_url_is_a_generator_error(models: ModelServer, base_url: str) -> None:
    with pytest.raises(GeneratorError, match="can't be sent"):
        _generator(models, base_url=base_url).generate(REQUEST)


def _error(status: str, code: str | None, **more: str) -> Behaviour:
    return answer(status, {"error": {"message": "as played", "code": code, **more}})


ERRORS: list[tuple[Behaviour, type[AppError], int]] = [
    (_error("500 Oops", None), GeneratorUnreachable, 3),
    (_error("409 Conflict", None), GeneratorUnreachable, 3),
    (_error("408 Request Timeout", None), GeneratorUnreachable, 3),
    (_error("429 Too Many Requests", None, type="insufficient_quota"), GeneratorRefused, 1),
    (_error("400 Bad Request", "billing_hard_limit_reached"), GeneratorRefused, 1),
    (_error("400 Bad Request", "content_policy_violation"), PromptRefused, 1),
    (_error("400 Bad Request", "string_above_max_length", param="prompt"), PromptRefused, 1),
    (_error("400 Bad Request", "invalid_value", param="size"), GeneratorRefused, 1),
    (_error("400 Bad Request", "invalid_value", param="model"), GeneratorRefused, 1),
    (_error("403 Forbidden", "model_not_found"), GeneratorRefused, 1),
    (_error("403 Forbidden", None), GeneratorRefused, 1),
    (answer("400 Bad Request", {"error": "a text"}), GeneratorRefused, 1),
    (answer("400 Bad Request", [1]), GeneratorRefused, 1),
    (answer("200 OK", {"data": ["text"]}), GeneratorError, 1),
    (answer("200 OK", {"data": {"b64_json": ""}}), GeneratorError, 1),
]


@pytest.mark.parametrize(("behaviour", "expected", "attempts"), ERRORS)
def test_error_responses_are_mapped(
    models: ModelServer, behaviour: Behaviour, expected: type[AppError], attempts: int
) -> None:
    models.script = [behaviour]
    with pytest.raises(AppError) as caught:
        _generator(models).generate(REQUEST)
    assert (type(caught.value), models.attempts) == (expected, attempts)


def _at(url: str) -> Behaviour:
    return answer("200 OK", {"data": [{"url": url, "b64_json": None}]})


def test_an_image_at_a_url_of_the_same_server_is_downloaded(models: ModelServer) -> None:
    models.script = [_at(f"{models.url}/images/1.png"), answer("200 OK", IMAGE, Content_Type="image/png")]
    assert _generator(models).generate(REQUEST).image == IMAGE
    assert [(r.method, r.uri) for r in models.received] == [
        ("POST", "/v1/images/generations"),
        ("GET", "/images/1.png"),
    ]
    assert "authorization" not in models.received[1].headers


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/1.png",
        "http://localhost/1.png",
        "https://example.org/1.png",
        "http://169.254.169.254/latest/meta-data/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/1.png",
        "//127.0.0.1/1.png",
        "//169.254.169.254/1.png",
        " http://169.254.169.254/1.png",
        "\t//169.254.169.254/1.png",
        "ht\ntp://169.254.169.254/1.png",
        "http://[::1",
        "http://127.0.0.1:99999/1.png",
        "https://127.0.0.1/1.png",
        "gopher:///1.png",
        "javascript:alert(1)",
        "/\ud800.png",
        ["http://127.0.0.1/"],
    ],
)
@pytest.mark.parametrize("field", ["url", "image_url", "b64_json", "image"])
def test_no_image_is_downloaded_from_a_different_server(models: ModelServer, url: Any, field: str) -> None:
    models.script = [answer("200 OK", {"data": [{field: url}]})]
    with pytest.raises(GeneratorError) as caught:
        _generator(models).generate(REQUEST)
    if "url" in field:
        assert caught.value.detail == "the response's URL is not on the server of OPENAI_BASE_URL"
    assert len(models.received) == 1


def test_user_information_is_not_taken_for_the_host(models: ModelServer) -> None:
    models.script = [_at(models.url.replace("//", "//") + "@169.254.169.254/1.png")]
    with pytest.raises(GeneratorError, match="not on the server of OPENAI_BASE_URL"):
        _generator(models).generate(REQUEST)


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("/images/1.png", "/images/1.png"),
        ("images/1.png", "/v1/images/1.png"),
        ("./1.png", "/v1/1.png"),
        ("../1.png", "/1.png"),
        ("?id=1&n=2", "/v1/?id=1&n=2"),
        ("//127.0.0.1:{port}/1.png", "/1.png"),
        ("HTTP://127.0.0.1:{port}/1.png#part", "/1.png"),
        ("http://somebody@127.0.0.1:{port}/1.png", "/1.png"),
        ("http://127.0.0.1:{port}", "/"),
        (" /1.png\n", "/1.png"),
        ("/a cat/größe.png", "/a%20cat/gr%C3%B6%C3%9Fe.png"),
        ("/a%20cat%2F1.png?sig=a%2Bb", "/a%20cat%2F1.png?sig=a%2Bb"),
        ("\\\\169.254.169.254\\1.png", "/v1/%5C%5C169.254.169.254%5C1.png"),
        ("http:169.254.169.254/1.png", "/v1/169.254.169.254/1.png"),
    ],
)
def test_urls_are_resolved_against_the_base_url(models: ModelServer, url: str, uri: str) -> None:
    models.script = [_at(url.format(port=models.url.rpartition(":")[2])), answer("200 OK", IMAGE)]
    assert _generator(models).generate(REQUEST).image == IMAGE
    assert models.received[1].uri == uri
    assert models.received[1].headers["host"] == models.url.removeprefix("http://")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://models.example/1.png", "https://models.example/1.png"),
        ("http://models.example:80/1.png", "https://models.example/1.png"),
        ("https://models.example:443/1.png", "https://models.example/1.png"),
        ("http://models.example:8080/1.png", None),
        ("https://models.example:8443/1.png", None),
        ("http://example/1.png", None),
        ("http://models.example.evil.example/1.png", None),
    ],
)
def test_an_http_url_may_belong_to_an_https_server(url: str, place: str | None) -> None:
    assert url_on_same_server("https://models.example/v1/", url) == place


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0", "[::1]", "127.0.0.1"])
def test_a_local_host_name_means_the_server_of_the_base_url(host: str) -> None:
    url = f"http://{host}:8080/1.png"
    assert url_on_same_server("http://models.example:8080/v1/", url) == "http://models.example:8080/1.png"
    assert url_on_same_server("http://models.example/v1/", url) is None


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 Other", "307 Temporary", "308 Permanent"])
def test_a_download_follows_redirects_on_the_same_server(models: ModelServer, status: str) -> None:
    models.script = [_at("/a/1.png"), answer(status, b"", Location="2.png"), answer("200 OK", IMAGE)]
    assert _generator(models).generate(REQUEST).image == IMAGE
    assert [request.uri for request in models.received[1:]] == ["/a/1.png", "/a/2.png"]


def test_endless_redirects_are_an_error(models: ModelServer) -> None:
    models.script = [_at("/1.png"), answer("302 Found", b"", Location="/1.png")]
    with pytest.raises(GeneratorError, match="302"):
        _generator(models).generate(REQUEST)
    assert (models.attempts, len(models.received)) == (1, 5)


def test_an_https_url_does_not_belong_to_an_http_server() -> None:
    assert url_on_same_server("http://models.example/v1/", "https://models.example/1.png") is None


@pytest.mark.parametrize(
    "behaviour",
    [
        answer("404 Not Found", b""),
        answer("429 Too Many Requests", b""),
        answer("503 Away", b""),
        reset,
    ],
)
def test_a_download_is_retried_without_another_generation(models: ModelServer, behaviour: Behaviour) -> None:
    models.script = [_at("/1.png"), behaviour, answer("200 OK", IMAGE)]
    assert _generator(models).generate(REQUEST).image == IMAGE
    assert (models.attempts, len(models.received)) == (1, 3)


@pytest.mark.parametrize(
    ("behaviour", "timeout", "expected", "downloads"),
    [
        (answer("404 Not Found", b""), 30, GeneratorError, 3),
        (answer("302 Found", b"", Location="http://169.254.169.254/"), 30, GeneratorError, 1),
        (answer("410 Gone", b""), 30, GeneratorError, 1),
        (answer("401 No", b""), 30, GeneratorError, 2),
        (answer("200 OK", b"<html>"), 30, GeneratorError, 1),
        (reset, 30, GeneratorError, 3),
        (stall, 5, GeneratorTimeout, 1),
        (trickle_body, 5, GeneratorTimeout, 1),
    ],
)
def test_a_failed_download_does_not_generate_again(
    models: ModelServer, behaviour: Behaviour, timeout: int, expected: type[AppError], downloads: int
) -> None:
    models.script = [_at(f"{models.url}/1.png"), behaviour]
    with pytest.raises(AppError) as caught:
        _generator(models, timeout=timeout).generate(REQUEST)
    assert (type(caught.value), models.attempts, len(models.received)) == (expected, 1, 1 + downloads)


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_a_download_sends_the_key_if_the_server_requires_it(models: ModelServer, status: str) -> None:
    models.script = [_at("/1.png"), answer(status, b""), answer("200 OK", IMAGE)]
    assert _generator(models).generate(REQUEST).image == IMAGE
    assert "authorization" not in models.received[1].headers
    assert models.received[2].headers["authorization"] == f"Bearer {API_KEY}"


def test_describe_model_gets_the_model(models: ModelServer) -> None:
    models.script = [answer("200 OK", {"id": OPENAI.model, "object": "model", "created": 1, "owned_by": "x"})]
    facts = _generator(models).describe_model()
    assert (facts.model, facts.status, facts.ends) == (OPENAI.model, "ACTIVE", None)
    assert models.received[0].uri == f"/v1/models/{OPENAI.model}"
    assert models.received[0].headers["authorization"] == f"Bearer {API_KEY}"


def test_describe_model_escapes_the_model_id(models: ModelServer) -> None:
    models.script = [answer("200 OK", {"id": "org/a b?"})]
    _generator(models, "org/a b?").describe_model()
    assert models.received[0].uri == "/v1/models/org%2Fa%20b%3F"


def test_describe_model_of_a_removed_model(models: ModelServer) -> None:
    models.script = [OPENAI.gone]
    with pytest.raises(GeneratorRefused, match="not available"):
        _generator(models).describe_model()
