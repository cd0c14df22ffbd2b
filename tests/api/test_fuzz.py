"""Random requests get well-formed JSON responses, and never a 500."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from app import create_app
from app.components import components_of
from app.config.settings import Config
from tests.conftest import json_of
from tests.pictures import picture
from tests.services.generators import NAME

pytestmark = pytest.mark.fuzz

BOUNDARY = "a-boundary"
LATIN = st.characters(max_codepoint=255)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """A client of a server with a fast generator and no rate limit."""
    root = tmp_path_factory.mktemp("fuzz")
    directories = {name: str(root / name) for name in ("CACHE_DIR", "LOCAL_STORE_DIR", "STATE_DIR")}
    flask = create_app(replace(Config.from_env(directories), generator=NAME, rate_limit_generate=""))
    yield flask.test_client()
    components_of(flask).cache.close()


def _check(response: Any, *statuses: int) -> None:
    """Assert that the response has one of `statuses` and the shape of all responses."""
    answer = json_of(response)
    assert response.status_code in statuses, answer
    assert answer["success"] is (response.status_code < 400)
    assert response.status_code < 400 or set(answer) == {"success", "message", "code"}


def _part(name: str, value: bytes, more: str = "") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode("utf-8", "replace") + value + b"\r\n"


_FILE = _part("image", picture(), '; filename="a.png"')
_FIELDS = st.sampled_from(["name", "folder", "overwrite", "image", "file"])
_PARTS = st.one_of(
    st.just(_FILE),
    st.builds(_part, _FIELDS, st.binary(max_size=40)),
    st.builds(_part, st.text(max_size=20), st.binary(max_size=20), st.text(max_size=20)),
    st.binary(max_size=40),
)
_END = f"--{BOUNDARY}--\r\n".encode()
_FORMS = st.lists(_PARTS, max_size=6).map(b"".join)
_TYPES = st.one_of(
    st.just(f"multipart/form-data; boundary={BOUNDARY}"),
    st.just(f'multipart/form-data; boundary="{BOUNDARY}"; charset=utf-16'),
    st.text(LATIN, max_size=30).map("multipart/form-data; {}".format),
    st.text(LATIN, max_size=30),
)


@given(body=_FORMS, end=st.sampled_from([_END, b""]), cut=st.integers(0, 60), content_type=_TYPES)
def test_random_forms_get_json_responses(
    client: FlaskClient, body: bytes, end: bytes, cut: int, content_type: str
) -> None:
    whole = body + end
    environ = {"CONTENT_TYPE": content_type}
    response = client.post("/api/images", data=whole[: len(whole) - cut], environ_overrides=environ)
    _check(response, 200, 201, 400, 413, 415, 422)


_PATHS = st.text(st.characters(max_codepoint=0x2FFF), max_size=60) | st.integers(200, 5000).map("x".__mul__)
_METHODS = st.sampled_from(["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT"])


@given(path=_PATHS, query=st.text(LATIN, max_size=20), method=_METHODS)
@pytest.mark.parametrize("root", ["/api/images/", "/", "/docs/assets/", "/web/", "/v1/models/"])
def test_random_paths_get_json_errors(
    client: FlaskClient, root: str, path: str, query: str, method: str
) -> None:
    whole = f"{root}{path}".encode("utf-8", "surrogatepass").decode("latin-1")
    environ = {"PATH_INFO": whole, "QUERY_STRING": query}
    with client.open("/", method=method, environ_overrides=environ) as response:
        assert response.status_code in (200, 308, 400, 404, 405), whole
        assert response.status_code < 400 or method == "HEAD" or "message" in response.get_data(as_text=True)


_VISIBLE = st.characters(min_codepoint=33, max_codepoint=126)


@given(key=st.text(LATIN, max_size=300) | st.text(_VISIBLE, min_size=1))
def test_random_idempotency_keys_get_the_same_response_twice(client: FlaskClient, key: str) -> None:
    body = {"prompt": "a cat", "size": "64x64"}
    environ = {"HTTP_IDEMPOTENCY_KEY": key}
    first, again = (
        client.post("/api/generate-image", json=body, environ_overrides=environ) for _ in range(2)
    )
    _check(first, 200, 400)
    assert (again.status_code, json_of(again)) == (first.status_code, json_of(first))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_PROMPTS = st.fixed_dictionaries(
    {"prompt": st.text(max_size=30) | _JSON},
    optional={
        "size": st.sampled_from(["64x64", "65x64", "0x0", "64x64\n"]) | _JSON,
        "format": st.sampled_from(["png", "jpeg", "svg"]) | _JSON,
        "folder": st.text(max_size=20) | _JSON,
        "seed": st.integers(-1, 2**32) | _JSON,
        "negative_prompt": _JSON,
        "more": _JSON,
    },
)


@given(body=_PROMPTS | _JSON)
def test_random_prompts_get_json_responses(client: FlaskClient, body: Any) -> None:
    response = client.post("/api/generate-image", data=json.dumps(body), content_type="application/json")
    _check(response, 200, 400, 422, 503)


@given(body=st.binary(max_size=200) | st.integers(1, 60_000).map(lambda depth: b'{"prompt":' + b"[" * depth))
@pytest.mark.parametrize("path", ["/api/generate-image", "/v1/images/generations"])
def test_invalid_json_is_a_400(client: FlaskClient, path: str, body: bytes) -> None:
    response = client.post(path, data=body, content_type="application/json")
    assert response.status_code == 400
    assert set(json_of(response)) in ({"success", "message", "code"}, {"error"})


@given(query=st.dictionaries(st.sampled_from(["prefix", "limit", "cursor", "details"]), st.text(max_size=30)))
def test_random_list_options_get_json_responses(client: FlaskClient, query: dict[str, str]) -> None:
    _check(client.get("/api/images", query_string=query), 200, 400)


_NAMES = st.sampled_from(
    ["Host", "Authorization", "X-API-Key", "Origin", "Forwarded", "Content-Type", "Accept", "Cookie", "Range"]
)


@given(headers=st.dictionaries(_NAMES, st.text(LATIN, max_size=40)))
@pytest.mark.parametrize("path", ["/api/images", "/healthz", "/api/images/no.png", "/v1/models", "/"])
def test_random_headers_cause_no_crash(client: FlaskClient, path: str, headers: dict[str, str]) -> None:
    sent = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    with client.get(path, environ_overrides=sent) as response:
        assert response.status_code in (200, 400, 401, 404)


_WORDS = st.sampled_from(
    [
        "w64",
        "W064",
        "h32",
        "cover",
        "pad",
        "still",
        "fp0.5x.1",
        "bg00FF00",
        "q80",
        "thumb",
        "w0",
        "w99999",
        "",
        "x",
    ]
)
_NAMES_OF_VARIANTS = st.lists(_WORDS, max_size=4).map(",".join) | st.text(st.characters(max_codepoint=0x2FFF))
_EXTENSIONS = st.sampled_from(
    ["", ".webp", ".JPG", ".jpeg", ".png", ".avif", ".gif", ".json", ".svg", ".", "/"]
)
_VALUES = st.sampled_from(["64", "0", "cover", "webp", "auto", "thumb", "#ffffff", "1", "A" * 43]) | st.text(
    LATIN
)
_QUERIES = st.dictionaries(
    st.sampled_from(["w", "h", "fit", "gravity", "bg", "q", "still", "format", "preset", "sig", "exp", "v"]),
    _VALUES,
    max_size=4,
)
_TYPES_OF_IMAGES = st.sampled_from(["image/avif", "image/webp", "image/*", "*/*", "IMAGE/PNG", "image/jpeg"])
_ACCEPTED = st.lists(
    st.builds(
        "{}{}".format, _TYPES_OF_IMAGES, st.sampled_from(["", ";q=0", ";q=0.5", ";q=nan", ";q=9", ";q"])
    ),
    max_size=5,
).map(",".join) | st.text(LATIN, max_size=40).map(lambda text: text * 200)


@pytest.fixture(scope="module")
def key(client: FlaskClient) -> str:
    """The key of a stored image."""
    return str(json_of(client.post("/api/images", data=picture(), content_type="image/png"))["key"])


@given(name=_NAMES_OF_VARIANTS, extension=_EXTENSIONS, query=_QUERIES, accept=_ACCEPTED)
@pytest.mark.parametrize("is_stored", [True, False])
def test_random_variants_are_images_redirects_or_refusals(
    client: FlaskClient,
    key: str,
    is_stored: bool,
    name: str,
    extension: str,
    query: dict[str, str],
    accept: str,
) -> None:
    path = f"/api/images/{key if is_stored else 'missing.png'}/{name}{extension}"
    environ = {
        "PATH_INFO": path.encode("utf-8", "surrogatepass").decode("latin-1"),
        "QUERY_STRING": urlencode(query, encoding="latin-1"),
        "HTTP_ACCEPT": accept,
    }
    with client.get("/", environ_overrides=environ) as response:
        assert response.status_code in ((200, 308, 400, 403) if is_stored else (308, 400, 403, 404)), path
        if response.status_code == 308:
            with client.get(response.headers["Location"], headers={"Accept": "*/*"}) as moved:
                assert moved.status_code != 308
        assert response.status_code < 400 or set(json_of(response)) == {"success", "message", "code"}


@given(query=_QUERIES, accept=_ACCEPTED)
def test_random_queries_of_images_are_images_redirects_or_refusals(
    client: FlaskClient, key: str, query: dict[str, str], accept: str
) -> None:
    environ = {"QUERY_STRING": urlencode(query, encoding="latin-1"), "HTTP_ACCEPT": accept}
    with client.get(f"/api/images/{key}", environ_overrides=environ) as response:
        assert response.status_code in (200, 308, 400)
    if response.status_code == 308:
        with client.get(response.headers["Location"], headers={"Accept": "*/*"}) as moved:
            assert moved.status_code in (200, 400, 403)
