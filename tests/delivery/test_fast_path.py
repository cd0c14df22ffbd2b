"""The fast path: conditional and range requests in full (RFC 9110), with the same responses as Flask's."""

import json
from dataclasses import replace
from itertools import product
from unittest.mock import Mock

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.http import http_date

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.errors import AppError, NotFound, StoreRefused, StoreTimeout
from tests.delivery.comparison import DATA, Comparison

SIZE = len(DATA)
OLD, FUTURE, NO_DATE = http_date(0), http_date(4_000_000_000), "yesterday"
YEAR_TOO_LARGE = "Sun, 06 Nov 99999999999999999999 08:49:37 GMT"

CONDITIONS: list[tuple[dict[str, str], int, int]] = [
    ({}, 200, 206),
    ({"If-None-Match": "ETAG"}, 304, 304),
    ({"If-None-Match": "W/ETAG"}, 304, 304),
    ({"If-None-Match": "*"}, 304, 304),
    ({"If-None-Match": '"other"'}, 200, 206),
    ({"If-None-Match": '"other", ETAG'}, 304, 304),
    ({"If-None-Match": ""}, 200, 206),
    ({"If-None-Match": "garbage"}, 200, 206),
    ({"If-Modified-Since": "MODIFIED"}, 304, 304),
    ({"If-Modified-Since": OLD}, 200, 206),
    ({"If-Modified-Since": FUTURE}, 304, 304),
    ({"If-Modified-Since": NO_DATE}, 200, 206),
    ({"If-Modified-Since": YEAR_TOO_LARGE}, 200, 206),
    ({"If-Match": "ETAG"}, 200, 206),
    ({"If-Match": '"other", ETAG'}, 200, 206),
    ({"If-Match": "W/ETAG"}, 412, 412),
    ({"If-Match": "*"}, 200, 206),
    ({"If-Match": '"other"'}, 412, 412),
    ({"If-Unmodified-Since": "MODIFIED"}, 200, 206),
    ({"If-Unmodified-Since": OLD}, 412, 412),
    ({"If-Unmodified-Since": NO_DATE}, 200, 206),
    ({"If-Unmodified-Since": YEAR_TOO_LARGE}, 200, 206),
    ({"If-None-Match": "ETAG", "If-Modified-Since": OLD}, 304, 304),
    ({"If-None-Match": '"other"', "If-Modified-Since": FUTURE}, 200, 206),
    ({"If-Match": '"other"', "If-None-Match": "ETAG"}, 412, 412),
    ({"If-Match": "ETAG", "If-Unmodified-Since": OLD}, 200, 206),
    ({"If-Range": "ETAG"}, 200, 206),
    ({"If-Range": "W/ETAG"}, 200, 200),
    ({"If-Range": "MODIFIED"}, 200, 206),
    ({"If-Range": '"other"'}, 200, 200),
    ({"If-Range": OLD}, 200, 200),
    ({"If-Range": FUTURE}, 200, 200),
    ({"If-Range": NO_DATE}, 200, 200),
    ({"If-Range": YEAR_TOO_LARGE}, 200, 200),
    ({"Origin": "https://example.org", "Authorization": "Bearer x", "Cookie": "a=b"}, 200, 206),
    ({"Accept": "text/html", "Accept-Encoding": "gzip, br", "Cache-Control": "no-cache"}, 200, 206),
]
"""Headers, and the status of GET with them: without a range and with `Range: bytes=0-0`."""

RANGES: dict[str, tuple[int, int]] = {
    "bytes=0-0": (0, 1),
    "bytes=0-": (0, SIZE),
    "bytes=5-9": (5, 10),
    "bytes=100-": (100, SIZE),
    "bytes=-5": (SIZE - 5, SIZE),
    "bytes=-999999999": (0, SIZE),
    "bytes=100-999999999": (100, SIZE),
    f"bytes={SIZE - 1}-": (SIZE - 1, SIZE),
}
"""The first byte that each range selects, and the one after the last."""

IGNORED_RANGES = [
    "",
    "bytes",
    "bytes=",
    "bytes=x",
    "bytes=--1",
    "bytes=9-5",
    "bytes=1-2-3",
    "bytes=0-1,5-6",
    "bytes=0-999999999999999999999",
    "lines=1-2",
    "\xff",
]
UNSATISFIABLE_RANGES = [f"bytes={SIZE}-", "bytes=999999999-", "bytes=-0"]


@pytest.mark.parametrize(("headers", "status", "range_status"), CONDITIONS, ids=str)
def test_conditional_requests(
    comparison: Comparison, headers: dict[str, str], status: int, range_status: int
) -> None:
    path = comparison.paths[0]
    etag = comparison.open("HEAD", path, {}).headers["etag"]
    for sent, expected in ((headers, status), ({**headers, "Range": "bytes=0-0"}, range_status)):
        response = comparison.open("GET", path, sent)
        assert response.status == expected
        if expected == 304:
            assert response.body == b""
            assert response.headers["etag"] == etag
            assert "cache-control" in response.headers
            assert not {"last-modified", "content-length", "content-type"} & response.headers.keys()
        elif expected == 412:
            assert json.loads(response.body)["code"] == "precondition_failed"
        else:
            assert response.body == DATA[: 1 if expected == 206 else SIZE]
        assert comparison.open("HEAD", path, sent).status == status  # which ignores ranges


@pytest.mark.parametrize(("value", "span"), RANGES.items(), ids=str)
def test_a_range_is_a_206(comparison: Comparison, value: str, span: tuple[int, int]) -> None:
    start, stop = span
    response = comparison.open("GET", comparison.paths[0], {"Range": value})
    assert (response.status, response.body) == (206, DATA[start:stop])
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert response.headers["content-length"] == str(stop - start)
    assert response.headers["content-type"] == "image/png"
    head = comparison.open("HEAD", comparison.paths[0], {"Range": value})
    assert (head.status, head.headers["content-length"]) == (200, str(SIZE))


@pytest.mark.parametrize("value", IGNORED_RANGES)
def test_a_range_that_is_invalid_or_multiple_is_ignored(comparison: Comparison, value: str) -> None:
    response = comparison.open("GET", comparison.paths[0], {"Range": value})
    assert (response.status, response.body) == (200, DATA)


@pytest.mark.parametrize("value", UNSATISFIABLE_RANGES)
def test_a_range_past_the_end_is_a_416(comparison: Comparison, value: str) -> None:
    response = comparison.open("GET", comparison.paths[0], {"Range": value})
    assert (response.status, json.loads(response.body)["code"]) == (416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize("headers", [headers for headers, *_ in CONDITIONS], ids=str)
def test_combined_conditions_and_ranges_get_the_same_response_as_from_flask(
    comparison: Comparison, headers: dict[str, str]
) -> None:
    ranges = [None, *RANGES, *IGNORED_RANGES, *UNSATISFIABLE_RANGES]
    for method, path, value in product(("GET", "HEAD"), comparison.paths, ranges):
        comparison.open(method, path, {**headers, **({"Range": value} if value is not None else {})})


@pytest.mark.parametrize(
    "path",
    [
        "no/such.png",
        "..",
        "a//b",
        "",
        "images/00",
        "%00",
        "me.png/",
        "me.PNG",
        "ME.png",
        "me.png?x=1",
        "\xe9.png",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
def test_other_paths_and_methods_get_the_same_response_as_from_flask(
    comparison: Comparison, method: str, path: str
) -> None:
    comparison.open(method, f"/api/images/{path}", {})


_NUMBERS = st.one_of(st.integers(0, SIZE + 2), st.integers(0, 10**30)).map(str) | st.just("")
_SPANS = st.builds("{}-{}".format, _NUMBERS, _NUMBERS)
_RANGES = st.one_of(
    _SPANS.map("bytes={}".format),
    st.lists(_SPANS, max_size=3).map(lambda spans: "bytes=" + ",".join(spans)),
    st.text(st.characters(max_codepoint=255), max_size=20),
)
_TAGS = st.one_of(
    st.sampled_from(["ETAG", "W/ETAG", "*", '"other"', "", '"', "W/", "ETAG,", ",,ETAG", '"a,b", ETAG']),
    st.text(st.characters(max_codepoint=255), max_size=20),
)
_DATES = st.one_of(
    st.sampled_from(["MODIFIED", OLD, FUTURE, NO_DATE, "Sun, 06 Nov 99999 08:49:37 GMT", "0", "-1"]),
    st.datetimes().map(http_date),
    st.text(st.characters(max_codepoint=255), max_size=30),
)
_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Range": _RANGES,
        "If-Range": _TAGS | _DATES,
        "If-Match": _TAGS,
        "If-None-Match": _TAGS,
        "If-Modified-Since": _DATES,
        "If-Unmodified-Since": _DATES,
    },
)


@pytest.mark.fuzz
@given(headers=_HEADERS, method=st.sampled_from(["GET", "HEAD"]), immutable=st.booleans())
def test_any_conditions_and_ranges_get_the_same_response_as_from_flask(
    comparison: Comparison, headers: dict[str, str], method: str, immutable: bool
) -> None:
    response = comparison.open(method, comparison.paths[0 if immutable else 1], headers)
    assert response.status in (200, 206, 304, 412, 416)
    if response.status == 206:
        span = response.headers["content-range"].removeprefix("bytes ").partition("/")[0]
        start, _, last = span.partition("-")
        assert response.body == DATA[int(start) : int(last) + 1]
    elif response.status == 200:
        assert response.body == (DATA if method == "GET" else b"")


NOT_CACHED = f"/api/images/images/00/{'0' * 30}.png"


@pytest.mark.parametrize(
    ("failure", "status"), [(StoreRefused(), 502), (StoreTimeout(), 504), (NotFound(), 404)], ids=str
)
def test_after_an_error_of_the_store_flask_does_not_repeat_the_request(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, failure: AppError, status: int
) -> None:
    get = Mock(side_effect=failure)
    monkeypatch.setattr(components_of(app).store, "get", get)
    answer = client.get(NOT_CACHED)
    assert (answer.status_code, answer.get_json()["code"], get.call_count) == (status, failure.code, 1)


def test_a_failed_precondition_on_an_object_too_large_to_cache_costs_one_request(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    flask = create_app(replace(config, cache_max_object_bytes=10))
    client = flask.test_client()
    url = client.post("/api/images", data=DATA, content_type="image/png").get_json()["image_url"]
    get = Mock(wraps=components_of(flask).store.get)
    monkeypatch.setattr(components_of(flask).store, "get", get)
    answer = client.get(url, headers={"If-Match": '"other"'})
    assert (answer.status_code, get.call_count) == (412, 1)
    components_of(flask).cache.close()
