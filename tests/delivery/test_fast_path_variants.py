"""The fast path serves canonical listed variants that are cached, and passes all other variants to Flask."""

from collections.abc import Callable, Iterable
from itertools import product
from unittest.mock import Mock
from urllib.parse import unquote

import pytest
from werkzeug.test import Client

from app.components import components_of
from app.delivery.fast_path import FastPath
from app.services.variant_rules import QUERY_NAMES
from tests.accept_headers import BROWSERS, FALLBACKS
from tests.delivery.comparison import Comparison
from tests.variant_requests import HITS, REFUSED

AVIF_ONLY = "image/avif,*/*"


@pytest.fixture(scope="module")
def warm(comparison: Comparison) -> Comparison:
    """The two images with all of `HITS` in the cache."""
    client = Client(comparison.flask)
    for path, (name, accept) in product(comparison.paths, HITS):
        with client.get(f"{path}/{name}", headers={"Accept": accept}) as response:
            assert response.status_code == 200, name
    return comparison


class Spied:
    """A fast path in front of an application that only records which requests reach it."""

    def __init__(self, comparison: Comparison) -> None:
        parts = components_of(comparison.flask)
        self._application = Mock(side_effect=self._answer)
        self._fast_path = FastPath(
            self._application, parts.images, parts.cache, parts.metrics, parts.variant_rules
        )

    def reaches_flask(self, target: str, accept: str = "", method: str = "GET") -> bool:
        """Return whether the request is passed on."""
        self._application.reset_mock()
        Client(self._fast_path).open(target, method=method, headers={"Accept": accept}).close()
        return bool(self._application.called)

    @staticmethod
    def _answer(_: object, start_response: Callable[..., object]) -> Iterable[bytes]:
        start_response("204 No Content", [])
        return ()


@pytest.mark.parametrize("number", [0, 1], ids=["immutable", "mutable"])
@pytest.mark.parametrize(("name", "accept"), HITS)
def test_cached_listed_variants_are_served_without_flask(
    warm: Comparison, number: int, name: str, accept: str
) -> None:
    path = f"{warm.paths[number]}/{name}"
    assert not Spied(warm).reaches_flask(path, accept)
    assert not Spied(warm).reaches_flask(path, accept, "HEAD")
    assert not Spied(warm).reaches_flask(f"{path}?v=2", accept)
    for method in ("GET", "HEAD"):
        response = warm.open(method, path, {"Accept": accept})
        assert (response.status, response.headers["cache-status"]) == (200, "s3-image-server; hit")
        assert response.headers.get("vary") == (None if "." in name else "Accept")
        caching = "public, no-cache" if number else "public, max-age=31536000, immutable"
        assert response.headers["cache-control"] == caching


@pytest.mark.parametrize("name", ["w32.webp", "w32"])
def test_conditions_and_ranges_apply_to_the_variant(warm: Comparison, name: str) -> None:
    path, sent = f"{warm.paths[0]}/{name}", {"Accept": AVIF_ONLY}
    whole = warm.open("GET", path, sent)
    matching = warm.open("GET", path, {**sent, "If-None-Match": whole.headers["etag"]})
    assert (matching.status, matching.headers.get("vary")) == (304, whole.headers.get("vary"))
    assert warm.open("GET", path, {**sent, "If-None-Match": "ETAG"}).status == 200  # the tag of the source
    assert warm.open("GET", path, {**sent, "If-Match": "ETAG"}).status == 412
    part = warm.open("GET", path, {**sent, "Range": "bytes=1-9"})
    assert (part.status, part.body) == (206, whole.body[1:10])


def test_negotiated_formats_have_different_validators(warm: Comparison) -> None:
    accepted = ("image/avif", "image/webp", "*/*")
    answers = [warm.open("GET", f"{warm.paths[0]}/w32", {"Accept": accept}) for accept in accepted]
    assert [answer.headers["content-type"] for answer in answers] == [
        "image/avif",
        "image/webp",
        "image/jpeg",
    ]
    assert len({answer.headers["etag"] for answer in answers}) == len(accepted)
    assert len({answer.headers["last-modified"] for answer in answers}) == len(accepted)


@pytest.mark.parametrize("number", [0, 1], ids=["immutable", "mutable"])
@pytest.mark.parametrize("name", ["w48.webp", "card.gif", "w32,still.webp", "w64"])
def test_variants_that_are_not_cached_reach_flask(warm: Comparison, number: int, name: str) -> None:
    assert Spied(warm).reaches_flask(f"{warm.paths[number]}/{name}", AVIF_ONLY)


@pytest.mark.parametrize("accept", FALLBACKS.values(), ids=FALLBACKS)
def test_the_fallback_reaches_flask_even_if_it_is_cached(warm: Comparison, accept: str) -> None:
    assert Spied(warm).reaches_flask(f"{warm.paths[0]}/w32", accept)


@pytest.mark.parametrize(("name", "status"), REFUSED)
def test_variants_that_no_one_may_request_are_refused_without_flask_if_the_key_is_ours(
    warm: Comparison, name: str, status: int
) -> None:
    ours, named = warm.paths
    is_refused = status == 400 and unquote(name).isascii()
    assert Spied(warm).reaches_flask(f"{ours}/{name}", AVIF_ONLY) != is_refused
    assert Spied(warm).reaches_flask(f"{named}/{name}", AVIF_ONLY)
    for path in warm.paths:
        assert warm.open("GET", f"{path}/{name}", {"Accept": AVIF_ONLY}).status == status


def test_signed_variants_reach_flask_even_if_they_are_cached(warm: Comparison) -> None:
    url = components_of(warm.flask).variant_urls.url_of(
        warm.paths[0].removeprefix("/api/images/"), "w20,h20,cover", "webp"
    )
    Client(warm.flask).get(url).close()
    response = warm.open("GET", url, {})
    assert (response.status, response.headers["cache-status"]) == (200, "s3-image-server; hit")
    for target in (url, f"{url}x"):
        assert Spied(warm).reaches_flask(target)
    assert warm.open("GET", url.partition("?")[0], {}).status == 400


@pytest.mark.parametrize("name", sorted(QUERY_NAMES))
@pytest.mark.parametrize("query", ["{}=1", "v=2&{}=1", "{}", "{}&v=2"])
def test_queries_for_a_variant_reach_flask(warm: Comparison, name: str, query: str) -> None:
    for path in warm.paths:
        assert Spied(warm).reaches_flask(f"{path}?{query.format(name)}")
        assert not Spied(warm).reaches_flask(f"{path}?{query.format(name + 'x')}")


def test_queries_with_encoded_names_get_the_same_response_as_from_flask(warm: Comparison) -> None:
    for path in warm.paths:
        response = warm.open("GET", f"{path}?%77=32&form%61t=webp", {})
        assert (response.status, response.headers["location"]) == (308, f"{path}/w32.webp")


@pytest.mark.parametrize("name", ["w32.webp", "w32", "info"])
def test_variants_of_missing_images_are_not_found(warm: Comparison, name: str) -> None:
    for key in ("no/such.png", f"images/00/{'0' * 30}.png"):
        assert Spied(warm).reaches_flask(f"/api/images/{key}/{name}", AVIF_ONLY)
        assert warm.open("GET", f"/api/images/{key}/{name}", {"Accept": AVIF_ONLY}).status == 404


def _found(comparison: Comparison, path: str, accept: str) -> str | None:
    """Return the cache key of what the event loop finds, or None."""
    found = components_of(comparison.flask).loop_hooks.find(path, lambda: accept)
    if found is None:
        return None
    found.body.close()
    return found.facts.key


@pytest.mark.parametrize(("name", "accept"), HITS)
def test_the_event_loop_finds_variants_of_immutable_images(warm: Comparison, name: str, accept: str) -> None:
    key = warm.paths[0].removeprefix("/api/images/")
    extension = "" if "." in name else f".{dict(BROWSERS.values()).get(accept, 'avif')}"
    assert _found(warm, f"{warm.paths[0]}/{name}", accept) == f"/variants/{key}/{name}{extension}"
    assert (
        _found(warm, f"{warm.paths[1]}/{name}", accept) is None
    )  # only the index knows how long it is fresh


@pytest.mark.parametrize("name", ["w32", "w48.webp", "w48", "w32.webp/", *(name for name, _ in REFUSED)])
def test_the_event_loop_finds_no_other_variants(warm: Comparison, name: str) -> None:
    assert _found(warm, f"{warm.paths[0]}/{name}", "*/*") is None


def test_the_event_loop_reads_the_accept_header_only_to_negotiate(warm: Comparison) -> None:
    accept = Mock(return_value="image/webp")
    find = components_of(warm.flask).loop_hooks.find
    for path, calls in ((warm.paths[0], 0), (f"{warm.paths[0]}/w32.avif", 0), (f"{warm.paths[0]}/w32", 1)):
        found = find(path, accept)
        assert found is not None
        found.body.close()
        assert accept.call_count == calls
