"""Listings by servers that page differently than AWS, or not at all. Each listing ends, but not too early."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest
from flask import Flask

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.errors import StoreError
from app.core.objects import ObjectPage
from app.stores.s3 import listing
from app.stores.s3.store import S3Store
from tests.conftest import json_of
from tests.rawstore import RawRequest, RawStore, answer_of
from tests.rawstore import listing as page_of
from tests.stores.s3.conftest import REGION
from tests.stores.test_own_store import MemoryStore

KEYS = [f"p/{number}.png" for number in range(5)]
TRUE, FALSE = "<IsTruncated>true</IsTruncated>", "<IsTruncated>false</IsTruncated>"


def entry(key: str) -> str:
    """Return the elements of one entry in a listing."""
    facts = "<Size>5</Size><ETag>&quot;e&quot;</ETag><LastModified>2026-11-22T08:00:00.000Z</LastModified>"
    return f"<Key>{escape(key)}</Key>{facts}"


@dataclass
class Lister:
    """Responds to listings of `keys`, in this order. Its tokens are indexes into `keys`."""

    keys: list[str]
    starts_after: bool = True
    knows_tokens: bool = True
    sends_tokens: bool = True
    most: int = 1000
    padding: int = 60

    def __call__(self, request: RawRequest) -> Iterable[bytes]:
        query = {name: values[0] for name, values in parse_qs(urlsplit(request.target).query).items()}
        if request.method != "GET" or "list-type" not in query:
            return [answer_of("404 Not Found", "Content-Length: 0")]
        place = 0
        if "continuation-token" in query:
            if not self.knows_tokens:
                body = b"<Error><Code>InvalidArgument</Code><Message>The token is wrong</Message></Error>"
                return [answer_of("400 Bad Request", f"Content-Length: {len(body)}", body=body)]
            place = int(query["continuation-token"].partition("-")[0])
        elif "start-after" in query and self.starts_after:
            place = sum(key <= query["start-after"] for key in self.keys)
        end = place + min(int(query["max-keys"]), self.most)
        more = TRUE if end < len(self.keys) else FALSE
        if end < len(self.keys) and self.sends_tokens:
            more += f"<NextContinuationToken>{end}-{'x' * self.padding}</NextContinuationToken>"
        return [page_of(*map(entry, self.keys[place:end]), truncated=more)]


@pytest.fixture
def raw() -> Iterator[RawStore]:
    """Return a server whose responses each test sets."""
    raw = RawStore(Lister(KEYS))
    yield raw
    raw.stop()


@pytest.fixture
def store(raw: RawStore, s3: Any) -> S3Store:
    """Return a store on this server."""
    return S3Store("cats", region=REGION, endpoint_url=raw.url)


@pytest.fixture
def app(raw: RawStore, s3: Any, config: Config) -> Iterator[Flask]:
    """Return an application on this server."""
    flask = create_app(
        replace(config, store="s3", s3_bucket="cats", aws_endpoint_url_s3=raw.url, aws_region=REGION)
    )
    yield flask
    components_of(flask).cache.close()


def pages(store: S3Store, limit: int) -> list[ObjectPage]:
    """Return all pages of a listing. Fail if there are more pages than keys."""
    found = [store.list("p/", limit=limit)]
    while found[-1].cursor is not None:
        assert len(found) <= len(KEYS)
        found.append(store.list("p/", limit=limit, cursor=found[-1].cursor))
    return found


def keys_in(found: Iterable[ObjectPage]) -> list[str]:
    """Return the keys in these pages."""
    return [facts.key for page in found for facts in page.objects]


WAYS: dict[str, dict[str, Any]] = {
    "as AWS": {},
    "StartAfter ignored": {"starts_after": False},
    "no tokens": {"sends_tokens": False},
    "tokens expire": {"knows_tokens": False},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("limit", [1, 2, 4, 5])
def test_a_listing_continues_in_every_way_that_a_server_may_support(
    raw: RawStore, store: S3Store, way: str, limit: int
) -> None:
    raw.answer = Lister(KEYS, **WAYS[way])
    assert keys_in(pages(store, limit)) == KEYS


def test_an_unordered_listing_continues_by_its_tokens(raw: RawStore, store: S3Store) -> None:
    """Directory buckets have no order, and some servers list by directory."""
    keys = ["p/b.png", "p/a.png", "p/d.png", "p/c.png", "p/0.png"]
    raw.answer = Lister(keys, starts_after=False)
    assert keys_in(pages(store, 2)) == keys


class Again:
    """Sends the same page for each request, with a new token. `{}` becomes the number of the request."""

    def __init__(self, *keys: str, more: str = "<NextContinuationToken>{}</NextContinuationToken>") -> None:
        self._keys, self._more, self._count = keys, more, 0

    def __call__(self, request: RawRequest) -> Iterable[bytes]:
        if "list-type" not in request.target:
            return [answer_of("404 Not Found", "Content-Length: 0")]
        self._count += 1
        more = TRUE + self._more.format(self._count) if self._count < 50 else FALSE
        return [page_of(*(entry(key.format(self._count)) for key in self._keys), truncated=more)]


ENDLESS: dict[str, Callable[[], Callable[[RawRequest], Iterable[bytes]]]] = {
    "StartAfter ignored, no tokens": lambda: Lister(KEYS, starts_after=False, sends_tokens=False, most=2),
    "pages that begin again": lambda: Again("p/0.png", "p/1{:03}.png"),
    "the same page with new tokens": lambda: Again("p/0.png", "p/1.png"),
    "the same page with one token": lambda: Again(
        "p/0.png", "p/1.png", more="<NextContinuationToken>t</NextContinuationToken>"
    ),
    "the same page without tokens": lambda: Again("p/0.png", "p/1.png", more=""),
    "the same page in no order": lambda: Again("p/1.png", "p/0.png"),
    "no order, then its beginning again": lambda: Again("p/1.png", "p/0.png", "p/0{:03}.png"),
    "no order and no tokens": lambda: Again("p/1.png", "p/0.png", more=""),
    "nothing, with one token": lambda: Again(more="<NextContinuationToken>t</NextContinuationToken>"),
    "nothing, without tokens": lambda: Again(more=""),
    "nothing, with new tokens": lambda: Again(),
}
"""Servers whose listings never end."""


@pytest.mark.parametrize("name", ENDLESS)
@pytest.mark.parametrize("command", ["images export", "cache warm", "bucket cost"])
def test_commands_end_when_a_listing_does_not_advance(
    raw: RawStore, app: Flask, tmp_path: Path, name: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_MAX_EMPTY_PAGES", 5)
    raw.answer = ENDLESS[name]()
    arguments = [*command.split(), *([str(tmp_path / "to")] if command == "images export" else [])]
    result = app.test_cli_runner().invoke(args=arguments)
    assert result.exit_code == 1, result.output
    assert "ListObjectsV2" in result.output
    assert len(raw.requests) < 15


@pytest.mark.parametrize("name", ENDLESS)
def test_a_page_that_does_not_advance_is_a_502(
    raw: RawStore, app: Flask, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_MAX_EMPTY_PAGES", 5)
    raw.answer = ENDLESS[name]()
    client, cursor = app.test_client(), None
    for _ in range(10):
        answer = client.get(
            "/api/images", query_string={"limit": 2, **({"cursor": cursor} if cursor else {})}
        )
        if answer.status_code != 200:
            break
        cursor = json_of(answer)["next_cursor"]
        assert cursor
    assert (answer.status_code, json_of(answer)["code"]) == (502, "store_error")


def test_the_last_page_must_advance_too(raw: RawStore, store: S3Store) -> None:
    first = store.list("p/", limit=2)
    raw.answer = lambda request: [page_of(entry("p/1.png"), entry("p/2.png"))]
    with pytest.raises(StoreError, match="does not continue"):
        store.list("p/", limit=2, cursor=first.cursor)


def test_pages_without_keys_do_not_end_a_listing(raw: RawStore, app: Flask, tmp_path: Path) -> None:
    """An export that exports nothing must not succeed."""
    lister = Lister(KEYS)

    def answer(request: RawRequest) -> Iterable[bytes]:
        if request.target.count("continuation-token=empty"):
            return lister(request._replace(target=request.target.replace("continuation-token=empty", "x=y")))
        if "list-type" in request.target and "continuation-token" not in request.target:
            return [page_of(truncated=f"{TRUE}<NextContinuationToken>empty</NextContinuationToken>")]
        return lister(request)

    raw.answer = answer
    listed = [image.key for image in components_of(app).images.list_all()]
    assert listed == KEYS
    result = app.test_cli_runner().invoke(args=["images", "export", str(tmp_path / "to"), "--json"])
    report = json.loads(result.output)
    assert (result.exit_code, report["images"], report["written"], report["failed"]) == (1, 5, 0, 5)


SPELLINGS = {"True": True, " true\n": True, "TRUE": True, "False": False, " false ": False}


@pytest.mark.parametrize("value", SPELLINGS)
def test_is_truncated_is_accepted_in_other_spellings(raw: RawStore, store: S3Store, value: str) -> None:
    raw.answer = lambda request: [page_of(entry("a.png"), truncated=f"<IsTruncated>{value}</IsTruncated>")]
    assert (store.list().cursor is not None) == SPELLINGS[value]


@pytest.mark.parametrize(
    "element", ["", "<IsTruncated/>", "<IsTruncated></IsTruncated>", "<IsTruncated>1</IsTruncated>"]
)
def test_a_page_without_a_valid_is_truncated_is_a_502(raw: RawStore, app: Flask, element: str) -> None:
    raw.answer = lambda request: [page_of(entry("a.png"), truncated=element)]
    answer = app.test_client().get("/api/images")
    assert (answer.status_code, json_of(answer)["code"]) == (502, "store_error")


@pytest.mark.parametrize("keys", [[], ["a.png"]])
def test_a_page_with_fewer_keys_than_key_count_is_an_error(
    raw: RawStore, store: S3Store, keys: list[str]
) -> None:
    raw.answer = lambda request: [page_of(*map(entry, keys), truncated=f"{FALSE}<KeyCount>25</KeyCount>")]
    with pytest.raises(StoreError, match="KeyCount of 25"):
        store.list()


def test_a_page_larger_than_the_limit_loses_no_key(raw: RawStore, store: S3Store) -> None:
    lister = Lister(KEYS)
    raw.answer = lambda request: lister(
        request._replace(target=request.target.replace("max-keys=2", "max-keys=1000"))
    )
    assert keys_in(pages(store, 2)) == KEYS


LONG = [letter * 1020 + ".png" for letter in "abc"]


@pytest.mark.parametrize("keys", [LONG, ["p/ü a.png", "p/猫+&.png", "p/🌊.png"]], ids=["long", "unicode"])
@pytest.mark.parametrize("token", [10, 1200, 3000])
def test_cursors_with_any_keys_and_tokens_work_in_the_api(
    raw: RawStore, app: Flask, keys: list[str], token: int
) -> None:
    raw.answer = Lister(keys, padding=token)
    client = app.test_client()
    listed: list[str] = []
    cursor: dict[str, str | None] = {}
    for _ in keys:
        answer = client.get("/api/images", query_string={"limit": 1, **cursor})
        assert answer.status_code == 200, answer.text
        listed += [image["key"] for image in json_of(answer)["images"]]
        cursor = {"cursor": json_of(answer)["next_cursor"]}
    assert (listed, cursor) == (keys, {"cursor": None})
    assert all(len(request.target) < 4000 for request in raw.requests)


def _encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "p/1.png",
        "A",
        "AAAA",
        "bnVsbA",
        _encoded([]),
        _encoded(["a", "t", 0]),
        _encoded(["", "not a token", 0, ""]),
        _encoded(["\ud800", "t", 0, ""]),
        _encoded({"a": 1, "b": 2, "c": 3, "d": 4}),
        _encoded(["a", 1, 0, ""]),
        "W" * 3000,
    ],
)
def test_a_foreign_cursor_does_no_harm(raw: RawStore, app: Flask, cursor: str) -> None:
    raw.answer = Lister(KEYS, knows_tokens=False)
    answer = app.test_client().get("/api/images", query_string={"cursor": cursor})
    assert answer.status_code in (200, 502)
    if cursor == "p/1.png":
        assert [image["key"] for image in json_of(answer)["images"]] == KEYS[2:]


def test_a_custom_store_that_lists_in_a_circle_is_an_error(config: Config) -> None:
    class Circle(MemoryStore):
        def list(self, prefix: str = "", *, limit: int = 100, cursor: str | None = None) -> ObjectPage:
            return ObjectPage((), {None: "a", "a": "b", "b": "a"}[cursor])

    flask = create_app(config)
    service = components_of(flask).images
    service._store = Circle()
    with pytest.raises(StoreError, match="same cursor twice"):
        list(service.list_all())
    components_of(flask).cache.close()
