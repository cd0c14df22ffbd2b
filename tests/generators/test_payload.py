"""The image in a response is found wherever it is and however it is encoded, within limits."""

import base64
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from app.core.errors import GeneratorError
from app.generators import transport
from app.generators.base import BaseGenerator, GenerationRequest
from app.generators.bedrock import BedrockGenerator
from app.generators.openai import OpenAIGenerator
from app.generators.payload import decode_image
from tests.pictures import noise, picture
from tests.providers import API_KEY, BEDROCK, OPENAI, ModelServer, Protocol, answer

REQUEST = GenerationRequest("a red boat", 96, 64, seed=1)
IMAGE = noise(3)
TEXT = base64.b64encode(IMAGE).decode()
assert {"+", "/", "="} < set(TEXT)

PROTOCOLS = {"bedrock": BEDROCK, "openai": OPENAI}


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> Protocol:
    """The protocol of each provider."""
    return PROTOCOLS[request.param]


@pytest.fixture
def generator(protocol: Protocol, models: ModelServer) -> BaseGenerator:
    """The generator for this provider."""
    if protocol is BEDROCK:
        return BedrockGenerator(BEDROCK.model, region="us-west-2", timeout=30)
    return OpenAIGenerator(OPENAI.model, api_key=API_KEY, base_url=f"{models.url}/v1", timeout=30)


def _lines(end: str, width: int = 76) -> str:
    return end.join(TEXT[start : start + width] for start in range(0, len(TEXT), width)) + end


URL_SAFE = TEXT.replace("+", "-").replace("/", "_")

TEXTS = {
    "plain": TEXT,
    "unpadded": TEXT.rstrip("="),
    "padded too much": TEXT + "===",
    "URL-safe": URL_SAFE,
    "URL-safe, unpadded": URL_SAFE.rstrip("="),
    "lines": _lines("\n"),
    "lines, CRLF": _lines("\r\n"),
    "lines, escaped twice": _lines("\\n"),
    "spaces around": f" \t{TEXT}\n ",
    "spaces within": _lines(" ", 4),
    "data: URI": f"data:image/png;base64,{TEXT}",
    "data: URI, capitals": f"DATA:image/PNG;BASE64,{TEXT}",
    "data: URI, no type": f"data:;base64,{TEXT}",
    "data: URI, parameters": f'data:image/png;name="a.png";charset=utf-8;base64, {_lines(chr(10))}',
    "data: URI, percent-encoded base64": f"data:image/png;base64,{quote(TEXT, safe='')}",
    "data: URI, percent-encoded bytes": f"data:image/png,{quote(IMAGE, safe='')}",
    "data: URI that forgets to say base64": f"data:image/png,{TEXT}",
    "data: URI without data:": f"image/png;base64,{TEXT}",
    "a prefix": f"base64,{TEXT}",
    "in quotes": f'"{TEXT}"',
    "bytes as Python shows them": f"b'{TEXT}'",
    "data: URI in quotes": f" 'data:image/png;base64,{TEXT}'\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_encodings_of_the_image(
    models: ModelServer, protocol: Protocol, generator: BaseGenerator, text: str
) -> None:
    models.script = [answer("200 OK", protocol.drawn(text))]
    assert generator.generate(REQUEST).image == IMAGE
    assert models.attempts == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "AVIF"])
def test_every_format_is_recognised_by_its_first_bytes(
    models: ModelServer, protocol: Protocol, generator: BaseGenerator, kind: str
) -> None:
    image = picture(kind, (40, 30))
    models.script = [protocol.success(image)]
    assert generator.generate(REQUEST).image == image


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "=",
        "A",
        TEXT[:-3] + "*" + TEXT[-3:],
        TEXT + "é",
        TEXT.rstrip("=")[:-1] + "=" + TEXT[-4:],
        "data:image/png;base64,",
        "data:image/png,",
        "data:text/html,<script>alert(1)</script>",
        "data:image/svg+xml,%3Csvg/%3E",
        f"<img>,{TEXT}",
        base64.b64encode(b"<html>").decode(),
        "AAAA" * 100,
        "\ud800",
        "%41\ud800",
        "data:image/png,\ud800",
    ],
    ids=range(17),
)
def test_texts_without_an_image_are_errors(
    models: ModelServer, protocol: Protocol, generator: BaseGenerator, text: str
) -> None:
    models.script = [answer("200 OK", protocol.drawn(text))]
    with pytest.raises(GeneratorError):
        generator.generate(REQUEST)
    assert models.attempts == 1


def test_decoding_uses_bounded_memory() -> None:
    text = _lines("\n") * (4 * 1024**2 // len(TEXT))
    tracemalloc.start()
    try:
        with pytest.raises(GeneratorError):  # padding in the middle
            decode_image(text)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(text)
    finally:
        tracemalloc.stop()


ENTRIES = {
    "null before it": [None, TEXT],
    "null after it": [TEXT, None],
    "an empty text before it": ["", TEXT],
    "nonsense before it": ["?", 7, [], {}, TEXT],
    "another text before it": [base64.b64encode(b"<html>").decode(), TEXT],
}


@pytest.mark.parametrize("entries", ENTRIES.values(), ids=ENTRIES)
def test_entries_without_an_image_are_skipped(
    models: ModelServer, protocol: Protocol, generator: BaseGenerator, entries: list[Any]
) -> None:
    if protocol is OPENAI:
        entries = [None, *({"b64_json": entry} for entry in entries)]
        models.script = [answer("200 OK", {"data": entries})]
    else:
        models.script = [answer("200 OK", {"images": entries, "finish_reasons": [None], "seeds": [1]})]
    assert generator.generate(REQUEST).image == IMAGE


def _zlib(body: bytes) -> bytes:
    return zlib.compress(body)


@pytest.mark.parametrize(
    ("pack", "coding"),
    [
        (gzip.compress, "gzip"),
        (gzip.compress, "GZIP"),
        (gzip.compress, "x-gzip"),
        (gzip.compress, "identity, gzip"),
        (_zlib, "deflate"),
        (bytes, "identity"),
    ],
)
def test_a_compressed_response_is_decompressed(
    models: ModelServer,
    protocol: Protocol,
    generator: BaseGenerator,
    pack: Callable[[bytes], bytes],
    coding: str,
) -> None:
    body = pack(json.dumps(protocol.drawn(TEXT)).encode())
    models.script = [answer("200 OK", body, Content_Encoding=coding)]
    assert generator.generate(REQUEST).image == IMAGE


def test_a_compressed_error_is_understood(
    models: ModelServer, protocol: Protocol, generator: BaseGenerator
) -> None:
    models.script = [
        answer("503 Away", gzip.compress(b"<html>", mtime=0), Content_Encoding="gzip"),
        answer("200 OK", protocol.drawn(TEXT)),
    ]
    assert generator.generate(REQUEST).image == IMAGE


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (gzip.compress(b"{}" * 100, mtime=0)[:-9], "gzip"),
        (b"{}", "gzip"),
        (gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "gzip, gzip"),
        (b"{}", "br"),
        (b"", "gzip"),
    ],
)
def test_a_response_that_cannot_be_decompressed_is_not_retried(
    models: ModelServer, generator: BaseGenerator, body: bytes, coding: str
) -> None:
    models.script = [answer("200 OK", body, Content_Encoding=coding)]
    with pytest.raises(GeneratorError):
        generator.generate(REQUEST)
    assert models.attempts == 1


def test_a_decompression_bomb_is_not_decompressed_whole(
    models: ModelServer, generator: BaseGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_RESPONSE_BYTES", 1024**2)
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(1024**2)) for _ in range(200)) + packer.flush()
    models.script = [answer("200 OK", bomb, Content_Encoding="gzip")]
    tracemalloc.start()
    try:
        with pytest.raises(GeneratorError, match="larger than"):
            generator.generate(REQUEST)
        assert tracemalloc.get_traced_memory()[1] < 100 * 1024**2
    finally:
        tracemalloc.stop()


def _raw(text: str) -> Callable[[Protocol], bytes]:
    """A body with a string that contains characters not allowed in JSON, such as an unescaped line end."""
    return lambda protocol: json.dumps(protocol.drawn("HERE")).replace("HERE", text).encode("latin-1")


BODIES: dict[str, Callable[[Protocol], bytes]] = {
    "a byte order mark": lambda p: b"\xef\xbb\xbf" + json.dumps(p.drawn(TEXT)).encode(),
    "UTF-16": lambda p: json.dumps(p.drawn(TEXT)).encode("utf-16"),
    "line ends not escaped": _raw(_lines("\n")),
    "Latin-1 beside it": lambda p: json.dumps(p.drawn(TEXT))[:-1].encode() + b', "x": "gr\xfcn"}',
    "control characters beside it": lambda p: json.dumps(p.drawn(TEXT))[:-1].encode() + b', "x": "a\x00\tb"}',
}


@pytest.mark.parametrize("content_type", ["application/json", "text/html", "image/png", "", "nonsense"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_almost_valid_json_of_any_media_type_is_accepted(
    models: ModelServer,
    protocol: Protocol,
    generator: BaseGenerator,
    body: Callable[[Protocol], bytes],
    content_type: str,
) -> None:
    models.script = [answer("200 OK", body(protocol), Content_Type=content_type)]
    assert generator.generate(REQUEST).image == IMAGE


def _openai(models: ModelServer) -> OpenAIGenerator:
    return OpenAIGenerator("any", base_url=f"{models.url}/v1", timeout=30)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "AVIF"])
@pytest.mark.parametrize("content_type", ["image/png", "application/json", "application/octet-stream", ""])
def test_a_body_that_is_an_image_file(models: ModelServer, kind: str, content_type: str) -> None:
    image = picture(kind, (40, 30))
    models.script = [answer("200 OK", image, Content_Type=content_type)]
    assert _openai(models).generate(REQUEST).image == image


TINY = base64.b64encode(picture("PNG", (2, 2))).decode()
PATH_LIKE = base64.b64encode(picture("JPEG", (2, 2))).decode()
assert PATH_LIKE.startswith("/9j/")
DATA_URI = f"data:image/png;base64,{TEXT}"

RESPONSES: dict[str, Any] = {
    "a data: URI as URL": {"data": [{"url": DATA_URI}]},
    "a data: URI as URL, null beside it": {"data": [{"b64_json": None, "url": DATA_URI}]},
    "base64 as URL": {"data": [{"url": TEXT}]},
    "a little base64 as URL": {"data": [{"url": TINY}]},
    "a little base64 that looks like a path": {"data": [{"url": PATH_LIKE}]},
    "a broken text beside a good URL": {"data": [{"b64_json": "*", "url": DATA_URI}]},
    "a foreign URL beside base64": {"data": [{"url": "https://cdn.example/1.png", "b64_json": TEXT}]},
    "a foreign URL before base64": {"data": [{"url": "https://cdn.example/1.png"}, {"b64_json": TEXT}]},
    "b64": {"data": [{"b64": TEXT}]},
    "base64": {"data": [{"base64": TEXT}]},
    "image": {"data": [{"image": TEXT}]},
    "image_base64": {"data": [{"image_base64": TEXT}]},
    "an object as image_url": {"data": [{"type": "image_url", "image_url": {"url": DATA_URI}}]},
    "texts in data": {"data": [TEXT]},
    "texts in images": {"images": [TEXT], "parameters": {}, "info": ""},
    "objects in images": {"images": [{"url": DATA_URI, "width": 8}]},
    "artifacts": {"artifacts": [{"base64": TEXT, "finishReason": "SUCCESS"}]},
    "an object as data": {"data": {"b64_json": TEXT}},
    "a text as data": {"data": TEXT},
    "nothing around it": {"b64_json": TEXT},
    "a result": {"result": {"image": TEXT}, "success": True},
    "a chat's message": {"choices": [{"message": {"images": [{"image_url": {"url": DATA_URI}}]}}]},
    "a list": [{"b64_json": TEXT}],
    "a text": TEXT,
}


@pytest.mark.parametrize("body", RESPONSES.values(), ids=RESPONSES)
def test_fields_that_may_contain_the_image(models: ModelServer, body: Any) -> None:
    models.script = [answer("200 OK", json.dumps(body).encode())]
    assert _openai(models).generate(REQUEST).image in (IMAGE, *map(base64.b64decode, (TINY, PATH_LIKE)))
    assert len(models.received) == 1


@pytest.mark.parametrize("url", [f"data:image/png;base64,{TEXT[:-5]}*", "x" * 9000, "/" * 9000, "data:,"])
def test_an_invalid_url_is_not_fetched(models: ModelServer, url: str) -> None:
    models.script = [answer("200 OK", {"data": [{"url": url}]})]
    with pytest.raises(GeneratorError):
        _openai(models).generate(REQUEST)
    assert len(models.received) == 1


def test_a_body_that_is_a_data_uri(models: ModelServer) -> None:
    models.script = [answer("200 OK", DATA_URI.encode(), Content_Type="text/plain")]
    assert _openai(models).generate(REQUEST).image == IMAGE


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_a_body_that_is_base64(models: ModelServer, kind: str) -> None:
    image = picture(kind, (40, 30))
    models.script = [answer("200 OK", base64.encodebytes(image), Content_Type="text/plain")]
    assert _openai(models).generate(REQUEST).image == image


def test_at_most_ten_urls_are_fetched(models: ModelServer) -> None:
    urls = [{"url": f"/{number}.png"} for number in range(1000)]
    models.script = [answer("200 OK", {"data": urls}), answer("200 OK", b"no image")]
    with pytest.raises(GeneratorError, match="not an image in a known format"):
        _openai(models).generate(REQUEST)
    assert len(models.received) == 11


def test_deep_nesting_is_not_searched(models: ModelServer) -> None:
    models.script = [answer("200 OK", b'{"data":' + b"[" * 50 + f'"{TEXT}"'.encode() + b"]" * 50 + b"}")]
    with pytest.raises(GeneratorError, match="contains no image"):
        _openai(models).generate(REQUEST)


@pytest.mark.parametrize("reason", [None, "SUCCESS", "success"])
def test_finish_reasons_that_mean_success(models: ModelServer, reason: str | None) -> None:
    models.script = [answer("200 OK", {"images": [TEXT], "finish_reasons": [reason], "seeds": [7]})]
    drawn = BedrockGenerator(BEDROCK.model, region="us-west-2", timeout=30).generate(REQUEST)
    assert (drawn.image, drawn.seed) == (IMAGE, 7)


def test_a_url_in_a_response_from_bedrock_is_not_fetched(models: ModelServer) -> None:
    models.script = [answer("200 OK", {"images": [f"{models.url}/1.png"], "finish_reasons": [None]})]
    with pytest.raises(GeneratorError, match="contains a URL"):
        BedrockGenerator(BEDROCK.model, region="us-west-2", timeout=30).generate(REQUEST)
    assert len(models.received) == 1
