"""Tests of what /metrics counts in one process."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from app import create_app
from app.components import components_of
from app.config.api_keys import parse_keys
from app.config.settings import Config
from app.core.errors import GeneratorTimeout, TooManyPixels
from app.imaging.sandbox.client import make_in_sandbox
from tests.pictures import noise, picture
from tests.waiting import wait_until

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """Return the samples in the text of /metrics by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _read(client: FlaskClient, **headers: str) -> Samples:
    response = client.get("/metrics", headers=headers)
    assert response.status_code == 200
    return samples(response.text)


def _requests(found: Samples) -> dict[tuple[str, str], float]:
    return {
        (dict(labels)["route"], dict(labels)["status"]): value
        for (name, labels), value in found.items()
        if name == "s3image_requests_total"
    }


def _errors(found: Samples) -> dict[tuple[str, str], float]:
    return {
        (dict(labels)["route"], dict(labels)["code"]): value
        for (name, labels), value in found.items()
        if name == "s3image_errors_total"
    }


def _upload(client: FlaskClient, data: bytes) -> str:
    answer = client.post("/api/images", data={"image": (BytesIO(data), "a.png")})
    assert answer.json is not None
    return f"/api/images/{answer.json['key']}"


def test_requests_are_counted_by_route_and_status(client: FlaskClient) -> None:
    url = _upload(client, picture())
    tag = client.head(url).headers["ETag"]
    for headers in ({}, {}, {"If-None-Match": tag}, {"Range": "bytes=0-3"}):
        client.get(url, headers=headers).close()
    client.get(url, headers={"If-Match": '"x"'})
    client.get("/api/images/no/such.png")
    client.get("/nothing")
    client.put("/healthz")
    found = _read(client)
    assert _requests(found) == {
        ("images.upload", "201"): 1,
        ("images.serve", "200"): 3,
        ("images.serve", "304"): 1,
        ("images.serve", "206"): 1,
        ("images.serve", "412"): 1,
        ("images.serve", "404"): 1,
        ("none", "404"): 1,
        ("none", "405"): 1,
    }
    assert found["s3image_request_duration_seconds_count", (("route", "images.upload"),)] == 1
    assert found["s3image_request_duration_seconds_count", (("route", "images.serve"),)] == 2, (
        "hits are not timed"
    )
    assert _requests(_read(client))["metrics.metrics", "200"] == 1


def test_errors_are_counted_by_route_and_code(config: Config) -> None:
    flask = create_app(
        replace(config, api_keys=parse_keys("all-scopes,one:list=one-scope"), rate_limit_upload="2/minute")
    )
    client = flask.test_client()
    everything = {"X-API-Key": "all-scopes"}
    client.post("/api/images")
    client.post("/api/images", headers={"X-API-Key": "wrong"})
    client.post("/api/images", headers={"X-API-Key": "one-scope"})
    for _ in range(3):
        client.post("/api/images", data=b"text", content_type="image/png", headers=everything)
    client.get("/api/images/a/../b.png")
    assert _errors(_read(client, **everything)) == {
        ("images.upload", "key_required"): 1,
        ("images.upload", "key_refused"): 1,
        ("images.upload", "scope_missing"): 1,
        ("images.upload", "unsupported_image"): 2,
        ("images.upload", "rate_limited"): 1,
        ("images.serve", "invalid_key"): 1,
    }
    components_of(flask).cache.close()


def test_the_cache_reports_its_results_and_its_size(client: FlaskClient, config: Config) -> None:
    url, size = _upload(client, picture()), len(picture())
    for _ in range(4):
        client.get(url).close()
    (config.cache_dir / "objects" / url.removeprefix("/api/images/")).unlink()
    client.get(url).close()
    found = _read(client)
    assert {key: value for key, value in found.items() if "cache" in key[0]} == {
        ("s3image_cache_answers_total", (("result", "hit"),)): 4,
        ("s3image_cache_answers_total", (("result", "miss"),)): 1,
        ("s3image_cache_answers_total", (("result", "collapsed"),)): 0,
        ("s3image_cache_answers_total", (("result", "revalidated"),)): 0,
        ("s3image_cache_answers_total", (("result", "stale"),)): 0,
        ("s3image_cache_answers_total", (("result", "bypass"),)): 0,
        ("s3image_cache_served_bytes_total", ()): 4 * size,
        ("s3image_cache_evictions_total", ()): 0,
        ("s3image_cache_saved_requests_total", ()): 4,
        ("s3image_cache_saved_usd_total", ()): pytest.approx(4 * 0.0004 / 1000),
        ("s3image_cache_entries", ()): 1,
        ("s3image_cache_bytes", ()): found["s3image_cache_bytes", ()],
        ("s3image_cache_max_bytes", ()): config.cache_max_bytes,
    }
    assert found["s3image_cache_bytes", ()] >= size


def test_evictions_are_counted(config: Config) -> None:
    flask = create_app(replace(config, cache_max_bytes=700_000))
    for seed in range(12):
        components_of(flask).images.upload_image(noise(seed, (150, 150)))
    found = _read(flask.test_client())
    assert found["s3image_cache_evictions_total", ()] == 12 - found["s3image_cache_entries", ()] > 0
    components_of(flask).cache.close()


def test_the_metrics_of_an_unreadable_cache_are_omitted(client: FlaskClient, config: Config) -> None:
    (config.cache_dir / "counts").unlink()
    found = _read(client)
    assert [name for name, _ in found if "cache" in name] == ["s3image_cache_max_bytes"]


def _variants(found: Samples) -> dict[str, float]:
    """Return the metrics of variants by their names and the values of their labels."""
    return {
        " ".join([name.removeprefix("s3image_variants_"), *(value for _, value in labels)]): value
        for (name, labels), value in found.items()
        if name.startswith("s3image_variants_")
        and not name.endswith(("_bucket", "_created"))
        and "duration_seconds_sum" not in name
    }


def test_variants_are_counted_by_format_result_and_reason(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise TooManyPixels

    url = _upload(client, noise(1, (60, 40)))
    with client.get(f"{url}/w32.webp") as made:
        webp, tag = len(made.data), made.headers["ETag"]
    for headers in ({}, {}, {"If-None-Match": tag}):
        client.get(f"{url}/w32.webp", headers=headers).close()
    for _ in range(2):  # Flask answers both, since the format is JPEG only because the image is opaque
        with client.get(f"{url}/w32", headers={"Accept": "*/*"}) as negotiated:
            jpeg = len(negotiated.data)
    for path in ("/w33.webp", "/w33.webp", "/xx", "/w33.webp?sig=abc", "?w=0"):
        client.get(url + path).close()
    client.get("/api/images/none.png/w32.webp").close()
    monkeypatch.setattr("app.services.variants.make_in_sandbox", refuse)
    client.get(f"{url}/w48.webp").close()
    found = _read(client)
    assert _variants(found) == {
        "made_total webp": 1,
        "made_total jpeg": 1,
        "made_bytes_total webp": webp,
        "made_bytes_total jpeg": jpeg,
        "duration_seconds_count webp": 1,
        "duration_seconds_count jpeg": 1,
        "hits_total": 4,
        "refused_total variant_not_permitted": 2,
        "refused_total invalid_variant": 2,
        "refused_total signature_refused": 1,
        "refused_total too_many_pixels": 1,
        "waiting": 0,
        "running": 0,
    }
    assert _requests(found)["images.serve_variant", "200"] == 5
    assert _requests(found)["images.serve_variant", "304"] == 1
    assert found["s3image_cache_answers_total", (("result", "hit"),)] >= 4


def test_requests_for_variants_are_shown_while_they_wait_and_run(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = _upload(client, noise(1, (60, 40)))
    reader = app.test_client()
    seen = []
    entered, may_end = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        entered.set()
        assert may_end.wait(60)
        return make_in_sandbox(*arguments)

    monkeypatch.setattr("app.services.variants.make_in_sandbox", slow)
    paths = ["w16.png", "w32.png", "w48.png"]
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(lambda path: app.test_client().get(f"{url}/{path}"), path) for path in paths]
        assert entered.wait(60)
        wait_until(lambda: _variants(_read(reader))["waiting"] == 2)
        seen.append(_variants(_read(reader))["running"])
        may_end.set()
        for answer in answers:
            with answer.result() as response:
                assert response.status_code == 200
    found = _variants(_read(reader))
    assert (seen, found["waiting"], found["running"]) == ([1], 0, 0)


def test_generations_are_counted_by_model_and_outcome(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    components = components_of(app)
    body = {"prompt": "a lake", "size": "64x64"}
    assert client.post("/api/generate-image", json=body).status_code == 200
    metered = components.generation._runner._generator

    def late(request: object) -> None:
        raise GeneratorTimeout

    monkeypatch.setattr(metered._generator, "generate", late)  # type: ignore[attr-defined]
    assert client.post("/api/generate-image", json=body).status_code == 504
    found = _read(client)
    assert {key: value for key, value in found.items() if key[0] == "s3image_generations_total"} == {
        ("s3image_generations_total", (("model", "builtin"), ("outcome", "ok"))): 1,
        ("s3image_generations_total", (("model", "builtin"), ("outcome", "generator_timeout"))): 1,
    }
    assert found["s3image_generation_duration_seconds_count", (("model", "builtin"),)] == 2
