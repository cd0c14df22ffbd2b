"""Test that invalid responses of an S3 server result in 502 and have no other effects."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import requests

from tests.pictures import noise
from tests.rawstore import RawRequest, RawStore, answer_of, listing
from tests.s3server import CREDENTIALS
from tests.server.running import Running, running

DATA = noise(1)
TYPE, ETAG, DATE = "Content-Type: image/png", 'ETag: "e"', "Last-Modified: Sun, 22 Nov 2026 08:00:00 GMT"
LENGTH = f"Content-Length: {len(DATA)}"
NUMBERS = count()


def _object(*headers: str, status: str = "200 OK", body: bytes = DATA) -> bytes:
    return answer_of(status, *headers, body=body)


def _chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


GOOD = _object(TYPE, ETAG, DATE, LENGTH)
CHUNKED = "Transfer-Encoding: chunked"

LENGTHS = {
    "exponent": "Content-Length: 1e3",
    "plus": "Content-Length: +5",
    "negative": "Content-Length: -1",
    "minus zero": "Content-Length: -0",
    "list": f"Content-Length: {len(DATA)}, {len(DATA)}",
    "underscore": "Content-Length: 1_000",
    "other digits": "Content-Length: \xb2\xb3",
    "hex": "Content-Length: 0x10",
    "fraction": "Content-Length: 10.0",
    "empty": "Content-Length:",
    "a petabyte": "Content-Length: 1000000000000000",
    "63 bits": "Content-Length: 9223372036854775808",
    "a thousand digits": "Content-Length: 1" + 1000 * "0",
    "duplicated": f"{LENGTH}\r\n{LENGTH}",
    "contradictory": f"{LENGTH}\r\nContent-Length: 10",
}

BODIES = {
    **{f"length {name}": _object(TYPE, ETAG, DATE, line) for name, line in LENGTHS.items()},
    "no length": _object(TYPE, ETAG, DATE),
    "chunks": _object(TYPE, ETAG, DATE, CHUNKED, body=_chunked(DATA)),
    "length and chunks": _object(TYPE, ETAG, DATE, LENGTH, CHUNKED, body=_chunked(DATA)),
    "length and more chunks": _object(TYPE, ETAG, DATE, LENGTH, CHUNKED, body=_chunked(DATA + DATA)),
    "chunks of no size": _object(TYPE, ETAG, DATE, CHUNKED, body=b"zz\r\n"),
    "40 TB that break off": _object(TYPE, ETAG, DATE, "Content-Length: 40000000000000"),
    "a part": _object(TYPE, ETAG, DATE, LENGTH, "Content-Range: bytes 0-9/50", status="206 Partial Content"),
    "a part that says 200": _object(TYPE, ETAG, DATE, LENGTH, "Content-Range: nonsense"),
    "status 204": _object(TYPE, ETAG, DATE, status="204 No Content", body=b""),
    "status 299": _object(TYPE, ETAG, DATE, LENGTH, status="299 Odd"),
    "no ETag": _object(TYPE, DATE, LENGTH),
    "empty ETag": _object(TYPE, 'ETag: ""', DATE, LENGTH),
    "ETag of two": _object(TYPE, 'ETag: "a", "b"', DATE, LENGTH),
    "ETag folded": _object(TYPE, 'ETag: "a\r\n b"', DATE, LENGTH),
    "ETag of bytes": _object(TYPE, 'ETag: "\xff\x01"', DATE, LENGTH),
    "ETag half quoted": _object(TYPE, 'ETag: "a', DATE, LENGTH),
    "no date": _object(TYPE, ETAG, LENGTH),
    "date nonsense": _object(TYPE, ETAG, LENGTH, "Last-Modified: yesterday"),
    "date empty": _object(TYPE, ETAG, LENGTH, "Last-Modified:"),
    "date 99999": _object(TYPE, ETAG, LENGTH, "Last-Modified: Sun, 22 Nov 99999 08:00:00 GMT"),
    "date 9999": _object(TYPE, ETAG, LENGTH, "Last-Modified: Fri, 31 Dec 9999 23:59:59 -1200"),
    "date before 1970": _object(TYPE, ETAG, LENGTH, "Last-Modified: Sat, 22 Nov 1969 08:00:00 GMT"),
    "date a number": _object(TYPE, ETAG, LENGTH, "Last-Modified: 1e400"),
    "parts count": _object(TYPE, ETAG, DATE, LENGTH, "x-amz-mp-parts-count: many"),
    "retention": _object(TYPE, ETAG, DATE, LENGTH, "x-amz-object-lock-retain-until-date: never"),
    "1xx without end": 2000 * (b"HTTP/1.1 100 Continue\r\nX: " + 1000 * b"x" + b"\r\n\r\n") + GOOD,
    "a header without end": b"HTTP/1.1 200 OK\r\nX: " + 10**6 * b"x",
    "headers without end": b"HTTP/1.1 200 OK\r\n" + 10**5 * b"X: y\r\n",
    "an error of 20 MB": answer_of("400 No", body=b"<Error>" + 20 * 10**6 * b"x" + b"</Error>"),
    "an error announced so": answer_of("400 No", "Content-Length: 20000000", body=100 * b"x"),
    "an error in chunks": answer_of("400 No", CHUNKED, body=_chunked(20 * 10**6 * b"x")),
    "trailers without end": answer_of("400 No", CHUNKED, body=b"0\r\n" + 10**6 * b"X: yyyyyy\r\n"),
    "an error with a nonsense length": answer_of("403 No", "Content-Length: 1e3", body=b"<Error/>"),
}
"""Invalid responses to GetObject."""

WEAK = {
    "spaces": _object(TYPE, ETAG, DATE, f"Content-Length:  \t{len(DATA)} \t"),
    "zeros": _object(TYPE, ETAG, DATE, f"Content-Length: 000{len(DATA)}"),
    "expires": _object(TYPE, ETAG, DATE, LENGTH, "Expires: -1"),
    "cache": _object(TYPE, ETAG, DATE, LENGTH, "Cache-Control: \x01\x02", "Content-Language: \xff"),
    "metadata": _object(TYPE, ETAG, DATE, LENGTH, "x-amz-meta-prompt: \xff\x01", "x-amz-meta-time: 1e9"),
    "no quotes": _object(TYPE, "ETag: e", DATE, LENGTH),
}
"""Unusual but valid responses to GetObject."""


@pytest.fixture(scope="module")
def store() -> Iterator[RawStore]:
    """Start a store. Each test sets its responses."""
    store = RawStore(lambda asked: [GOOD])
    yield store
    store.stop()


@pytest.fixture(scope="module")
def server(store: RawStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a server with the store and one worker."""
    settings = {
        **CREDENTIALS,
        "S3_BUCKET": "cats",
        "AWS_ENDPOINT_URL_S3": store.url,
        "AWS_REGION": "us-east-1",
    }
    directory = tmp_path_factory.mktemp("nonsense")
    with running(directory, **settings, WEB_CONCURRENCY="1", CACHE_NEGATIVE_TTL="0", S3_ACL="none") as server:
        workers = server.workers()
        yield server
        assert server.workers() == workers
        assert "Traceback" not in server.log


def _new_url(server: Running) -> str:
    return f"{server.url}/api/images/nonsense-{next(NUMBERS)}.png"


def _check(answer: requests.Response, name: str = "") -> None:
    assert (answer.status_code, answer.json().keys()) == (502, {"success", "message", "code"}), name
    assert answer.json()["code"] == "store_error", answer.json()


@pytest.mark.parametrize("name", BODIES)
def test_an_invalid_object_gives_502(store: RawStore, server: Running, name: str) -> None:
    url = _new_url(server)
    store.answer = lambda asked: [BODIES[name]]
    _check(requests.get(url, timeout=60))
    head = requests.head(url, timeout=60)
    assert (head.status_code, head.headers["Content-Type"]) == (502, "application/json")
    store.answer = lambda asked: [GOOD]
    assert requests.get(url, timeout=60).content == DATA


@pytest.mark.parametrize("name", WEAK)
def test_an_unusual_but_valid_object_is_served(store: RawStore, server: Running, name: str) -> None:
    store.answer = lambda asked: [WEAK[name]]
    assert requests.get(_new_url(server), timeout=60).content == DATA


@pytest.mark.parametrize("type_", ["image/png\r\n x", "image/\xff", "\x01", "image/png\x00", ""])
def test_an_invalid_content_type_is_not_sent_to_clients(store: RawStore, server: Running, type_: str) -> None:
    store.answer = lambda asked: [_object(f"Content-Type: {type_}", ETAG, DATE, LENGTH)]
    answer = requests.get(_new_url(server), timeout=60)
    assert (answer.status_code, answer.headers["Content-Type"]) in {
        (200, "image/png"),
        (404, "application/json"),
        (502, "application/json"),
    }


def test_an_endless_chunk_size_counts_as_a_broken_connection(store: RawStore, server: Running) -> None:
    store.answer = lambda asked: [answer_of("400 No", CHUNKED, body=10**7 * b"0")]
    assert requests.get(_new_url(server), timeout=60).json()["code"] == "store_unreachable"


HEADS = {
    **{f"length {name}": _object(TYPE, ETAG, DATE, line, body=b"") for name, line in LENGTHS.items()},
    "no length": _object(TYPE, ETAG, DATE, body=b""),
    "no ETag": _object(TYPE, DATE, LENGTH, body=b""),
    "date nonsense": _object(TYPE, ETAG, LENGTH, "Last-Modified: yesterday", body=b""),
    "date 99999": _object(TYPE, ETAG, LENGTH, "Last-Modified: Sun, 22 Nov 99999 08:00:00 GMT", body=b""),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_delete_after_an_invalid_head_gives_502(store: RawStore, server: Running, name: str) -> None:
    store.answer = lambda asked: [HEADS[name] if asked.method == "HEAD" else GOOD]
    _check(requests.delete(_new_url(server), timeout=60))


ENTRY = {
    "Key": "a.png",
    "Size": "10",
    "ETag": "&quot;e&quot;",
    "LastModified": "2026-11-22T08:00:00.000Z",
}


def _entry(**changed: str | None) -> str:
    return "".join(f"<{name}>{v}</{name}>" for name, v in {**ENTRY, **changed}.items() if v is not None)


LISTINGS = {
    **{
        f"length {name}": listing().replace(b"Content-Length", line.encode("latin-1") + b"\r\nX-Was")
        for name, line in LENGTHS.items()
    },
    "size nonsense": listing(_entry(Size="big")),
    "size negative": listing(_entry(Size="-1")),
    "size 10^30": listing(_entry(Size=str(10**30))),
    "size of digits without end": listing(_entry(Size=5000 * "9")),
    "size empty": listing(_entry(Size="")),
    "no size": listing(_entry(Size=None)),
    "no key": listing(_entry(Key=None)),
    "no ETag": listing(_entry(ETag=None)),
    "no date": listing(_entry(LastModified=None)),
    "date nonsense": listing(_entry(LastModified="yesterday")),
    "date 99999": listing(_entry(LastModified="99999-11-22T08:00:00.000Z")),
    "date 0001": listing(_entry(LastModified="0001-01-01T00:00:00+12:00")),
    "no IsTruncated": listing(_entry(), truncated=""),
    "going on from before": listing(_entry(Key="0.png"), truncated="<IsTruncated>true</IsTruncated>"),
    "IsTruncated empty": listing(_entry(), truncated="<IsTruncated/>"),
    "IsTruncated nonsense": listing(_entry(), truncated="<IsTruncated>perhaps</IsTruncated>"),
    "beginning at the one before": listing(
        _entry(Key="0.png"), _entry(), truncated="<IsTruncated>true</IsTruncated>"
    ),
    "the one before, and the end": listing(_entry(Key="0.png"), _entry()),
    "truncated, and empty": listing(truncated="<IsTruncated>true</IsTruncated>"),
    "fewer keys than it says": listing(truncated="<IsTruncated>false</IsTruncated><KeyCount>25</KeyCount>"),
    "other XML": answer_of("200 OK", body=b"<html/>"),
    "entities": answer_of(
        "200 OK",
        body=b'<!DOCTYPE x [<!ENTITY a "aa">]><ListBucketResult>&a;</ListBucketResult>',
    ),
    "20 MB": answer_of("200 OK", body=b"<ListBucketResult>" + 20 * 10**6 * b" "),
    "20 MB in chunks": answer_of("200 OK", CHUNKED, body=_chunked(20 * 10**6 * b" ")),
}


@pytest.mark.parametrize("name", LISTINGS)
def test_an_invalid_listing_gives_502(store: RawStore, server: Running, name: str) -> None:
    store.answer = lambda asked: [LISTINGS[name]]
    _check(requests.get(f"{server.url}/api/images?cursor=0.png", timeout=60))
    store.answer = lambda asked: [listing(_entry())]
    found = requests.get(f"{server.url}/api/images", timeout=60).json()["images"]
    assert [image["key"] for image in found] == ["a.png"]


CUT = {
    "no XML": b"\x00\xff",
    "cut XML": b"<ListBucketResult><Contents>",
    "gzip": b"\x1f\x8b\x08\x00",
    "nothing": b"",
}


@pytest.mark.parametrize("name", CUT)
def test_a_listing_that_may_be_truncated_is_an_error_of_the_store(
    store: RawStore, server: Running, name: str
) -> None:
    """boto3 retries it like a failure of S3, and treats a missing body as an empty response."""
    store.answer = lambda asked: [answer_of("200 OK", "Content-Encoding: gzip", body=CUT[name])]
    answer = requests.get(f"{server.url}/api/images", timeout=60)
    assert answer.json()["code"] in ("store_unreachable", "store_error")


def test_a_page_larger_than_requested_is_cut(store: RawStore, server: Running) -> None:
    store.answer = lambda asked: [listing(*(_entry(Key=f"{number}.png") for number in range(9)))]
    page = requests.get(f"{server.url}/api/images?limit=3", timeout=60).json()
    assert [image["key"] for image in page["images"]] == ["0.png", "1.png", "2.png"]
    assert page["next_cursor"] is not None


def _stored(*headers: str) -> bytes:
    return answer_of("200 OK", *headers)


UPLOADS = {
    **{f"length {name}": _stored(ETAG, line) for name, line in LENGTHS.items()},
    "no ETag": _stored("Content-Length: 0"),
    "20 MB": answer_of("200 OK", ETAG, body=20 * 10**6 * b" "),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_an_upload_with_an_invalid_response_gives_502(store: RawStore, server: Running, name: str) -> None:
    store.answer = lambda asked: [UPLOADS[name] if asked.method == "PUT" else answer_of("404 No")]
    answer = requests.post(
        f"{server.url}/api/images",
        files={"image": ("a.png", DATA)},
        data={"name": f"up-{next(NUMBERS)}.png"},
        timeout=60,
    )
    _check(answer, name)


@pytest.mark.parametrize(
    "date", ["yesterday", "Sun, 22 Nov 99999 08:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -1200", ""]
)
def test_an_upload_needs_no_date(store: RawStore, server: Running, date: str) -> None:
    store.answer = lambda asked: [
        _stored(ETAG, "Content-Length: 0", f"Date: {date}") if asked.method == "PUT" else answer_of("404 No")
    ]
    name = f"up-{next(NUMBERS)}.png"
    answer = requests.post(
        f"{server.url}/api/images", files={"image": ("a.png", DATA)}, data={"name": name}, timeout=60
    )
    assert answer.status_code == 201
    assert requests.get(f"{server.url}/api/images/{name}", timeout=60).status_code == 200


def _answer_by_method(head: bytes, other: bytes, asked: RawRequest) -> list[bytes]:
    return [head if asked.method == "HEAD" else other]


def test_a_delete_with_an_invalid_response_gives_502(store: RawStore, server: Running) -> None:
    head = _object(TYPE, ETAG, DATE, LENGTH, body=b"")
    for name, line in LENGTHS.items():
        deleted = answer_of("204 No Content", line)
        store.answer = partial(_answer_by_method, head, deleted)
        _check(requests.delete(_new_url(server), timeout=60), name)


def test_endless_error_bodies_take_little_memory(store: RawStore, server: Running) -> None:
    """The store sends 200 MB of XML. Only the beginning is read."""

    def answer(asked: RawRequest) -> Iterable[bytes]:
        yield answer_of("400 No", body=b"<Error>")
        for _ in range(200):
            yield bytes(10**6)

    store.answer = answer
    before = _peak(server)
    for _ in range(3):
        _check(requests.get(_new_url(server), timeout=60))
    assert _peak(server) - before < 32 * 1024**2


def _peak(server: Running) -> int:
    """Return the peak memory of the worker in bytes."""
    status = Path(f"/proc/{server.workers()[0]}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024
