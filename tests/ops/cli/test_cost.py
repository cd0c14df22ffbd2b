"""`flask bucket cost`: the guide's table to the cent, the table shown, and the store counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from app.components import components_of
from app.ops.cost import LIST_PRICES
from tests.pictures import noise
from tests.s3server import S3Server, refusal


def _run(app: Flask, *arguments: object) -> Result:
    return app.test_cli_runner().invoke(args=["bucket", "cost", *map(str, arguments)])


def _json(app: Flask, *arguments: object) -> dict[str, Any]:
    result = _run(app, *arguments, "--json")
    assert result.exit_code == 0, result.output
    loaded: dict[str, Any] = json.loads(result.output)
    return loaded


@pytest.mark.parametrize(
    ("images", "kilobytes", "views", "line", "dollars"),
    [
        # Storage: $0.023 per GB/month; 10,000 images × 500KB = 5GB: $0.12/month
        (10_000, 500, 0, ("without_cache", "storage"), "0.12"),
        # PUT/POST: $0.005 per 1,000 requests
        (1_000_000, 1, 0, ("upload_once",), "5.00"),
        # GET: $0.0004 per 1,000 requests; 100,000 image views = $0.04
        (10_000, 500, 100_000, ("without_cache", "get_requests"), "0.04"),
        # OUT to internet: $0.09 per GB, after 100 GB free: these views are 50 GB
        (10_000, 500, 100_000, ("without_cache", "transfer_out"), "0.00"),
        (10_000, 500, 200_000, ("without_cache", "transfer_out"), "0.00"),
        (10_000, 500, 202_000, ("without_cache", "transfer_out"), "0.09"),
        # "Typical small app cost: $1-5/month": the same images, seen some 250,000 times
        (10_000, 500, 250_000, ("without_cache", "total"), "2.47"),
    ],
)
def test_the_guide_s_table(
    app: Flask, images: int, kilobytes: int, views: int, line: tuple[str, ...], dollars: str
) -> None:
    """Its assumptions: us-east-1, no cache, 1 GB = 1,000,000 KB, nothing else in the account."""
    found: Any = _json(app, "--images", images, "--size", kilobytes, "--views", views)
    for name in line:
        found = found[name]
    assert found == dollars


@pytest.mark.parametrize(
    ("images", "kilobytes", "views", "upload", "storage", "get_requests"),
    [
        (2_000, 2_500, 20_000, "0.00", "0.00", "0.00"),
        (4_000, 2_500, 45_000, "0.01", "0.12", "0.01"),
    ],
)
def test_the_guide_s_free_tier_is_a_list_of_prices(
    app: Flask,
    tmp_path: Path,
    images: int,
    kilobytes: int,
    views: int,
    upload: str,
    storage: str,
    get_requests: str,
) -> None:
    """5GB storage, 20,000 GET requests, 2,000 PUT requests: once for an account's first 12 months."""
    prices = json.loads(LIST_PRICES.read_bytes())
    for line, free in (("storage", 5), ("get_requests", 20_000), ("put_requests", 2_000)):
        prices[line]["tiers"].insert(0, {"up_to": free, "price": 0})
    (tmp_path / "free.json").write_text(json.dumps(prices), encoding="utf-8")
    arguments = (
        "--images",
        images,
        "--size",
        kilobytes,
        "--views",
        views,
        "--prices",
        tmp_path / "free.json",
    )
    found = _json(app, *arguments)
    assert (found["upload_once"], found["without_cache"]["storage"]) == (upload, storage)
    assert found["without_cache"]["get_requests"] == get_requests


def test_json(app: Flask) -> None:
    found = _json(app, "--images", 10_000, "--size", 500, "--views", 1_000_000, "--hit-ratio", "0.95")
    prices = found.pop("prices")
    assert set(prices) == {"date", "source", "region", "currency"}
    assert found == {
        "images": 10_000,
        "bytes": 5_000_000_000,
        "views": 1_000_000,
        "hit_ratio": 0.95,
        "hit_ratio_counted_from": None,
        "upload_once": "0.05",
        "without_cache": {
            "storage": "0.12",
            "get_requests": "0.40",
            "transfer_out": "36.00",
            "total": "36.52",
        },
        "cache_in_aws": {
            "storage": "0.12",
            "get_requests": "0.02",
            "transfer_out": "36.00",
            "total": "36.14",
            "saved": "0.38",
        },
        "cache_elsewhere": {
            "storage": "0.12",
            "get_requests": "0.02",
            "transfer_out": "0.00",
            "total": "0.14",
            "saved": "36.38",
        },
    }


def test_the_table(app: Flask) -> None:
    arguments = ("--images", 10_000, "--size", 500, "--views", 1_000_000, "--hit-ratio", "0.95")
    lines = _run(app, *arguments).output.splitlines()
    assert lines[:3] == [
        "10,000 images, 5,000,000,000 bytes",
        "1,000,000 views a month",
        "95.0% of the views answered by the cache",
    ]
    assert lines[5:13] == [
        "                  without cache     cache in AWS  cache elsewhere",
        "storage                    0.12             0.12             0.12",
        "GET requests               0.40             0.02             0.02",
        "transfer out              36.00            36.00             0.00",
        "a month                   36.52            36.14             0.14",
        "saved                                       0.38            36.38",
        "",
        "Uploading them costs 0.05 once.",
    ]
    assert any(line.startswith("Cache in AWS: on a server in the bucket's region.") for line in lines)


def test_the_store_is_counted_and_what_is_not_known_is_said(app: Flask) -> None:
    service = components_of(app).images
    stored = [service.upload_image(noise(number)) for number in range(3)]
    found = _json(app)
    assert (found["images"], found["bytes"]) == (3, sum(image.size for image in stored))
    assert (found["views"], found["without_cache"]["total"], found["cache_in_aws"]) == (None, None, None)
    text = _run(app).output
    assert "How often they are viewed is not known: --views N says it." in text
    assert (
        "GET requests                  ?\ntransfer out                  ?\na month                       ?\n"
        in text
    )
    assert "cache in AWS" not in text


def test_an_empty_store_gets_an_example_that_works(app: Flask) -> None:
    text = _run(app).output
    assert "There are no images in the store (STORE=local), so there is nothing to price yet." in text
    (example,) = (line.strip() for line in text.splitlines() if "--images" in line)
    lines = _run(app, *example.removeprefix("flask bucket cost ").split()).output.splitlines()
    assert lines[0] == "10,000 images, 5,000,000,000 bytes"
    assert lines[9].split() == ["a", "month", "36.52", "36.14", "0.14"]
    assert _json(app)["images"] == 0


def test_images_that_are_not_in_s3_are_said_to_cost_nothing(app: Flask) -> None:
    components_of(app).images.upload_image(noise(1))
    assert _run(app).output.startswith("These images are not in S3, so S3 charges nothing for them:")
    assert "not in S3" not in _run(app, "--images", 1, "--size", 1).output


@pytest.mark.parametrize("name", ["bucket", "cache", "images", "keys"])
def test_each_group_says_what_it_is_for(app: Flask, name: str) -> None:
    (line,) = (
        line
        for line in app.test_cli_runner().invoke(args=["--help"]).output.splitlines()
        if f"  {name} " in line
    )
    assert not line.endswith("...")
    assert len(line.split()) > 3


@pytest.fixture
def viewed(app: Flask) -> Flask:
    """An application that was asked four times for an image, once of them before the cache had it."""
    key = components_of(app).images.upload_image(noise(1)).key
    components_of(app).cache.clear()
    client = app.test_client()
    for _ in range(4):
        client.get(f"/api/images/{key}").close()
    return app


def test_the_hit_ratio_is_the_one_seen_so_far(viewed: Flask) -> None:
    found = _json(viewed, "--images", 10_000, "--size", 500, "--views", 1_000_000)
    assert (found["hit_ratio"], found["hit_ratio_counted_from"]) == (0.75, 4)
    assert found["cache_in_aws"]["get_requests"] == "0.10"
    text = _run(viewed).output
    assert (
        "75.0% of the views answered by the cache, as in 4 requests so far (--hit-ratio says otherwise)"
        in text
    )
    assert "is not known: --hit-ratio" not in text


def test_a_given_hit_ratio_wins(viewed: Flask) -> None:
    found = _json(viewed, "--hit-ratio", "0.5")
    assert (found["hit_ratio"], found["hit_ratio_counted_from"]) == (0.5, None)
    assert "50.0% of the views answered by the cache\n" in _run(viewed, "--hit-ratio", "0.5").output


@pytest.mark.parametrize("lost", [False, True])
def test_without_a_count_the_hit_ratio_is_not_known(app: Flask, lost: bool) -> None:
    if lost:
        components_of(app).cache._layout.counts.unlink()
    found = _json(app)
    assert (found["hit_ratio"], found["hit_ratio_counted_from"]) == (None, None)
    assert "How many views the cache answers is not known: --hit-ratio says it" in _run(app).output


def test_a_store_that_cant_be_listed(s3_app: Flask, s3: S3Server) -> None:
    s3.fault = refusal("403 Forbidden", "AccessDenied", "GET")
    result = _run(s3_app)
    assert result.exit_code == 1
    assert "Error: The image store refused the request." in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--images", "5"], "--images and --size go together"),
        (["--size", "5"], "--images and --size go together"),
        (["--images", "-1", "--size", "5"], "not in the range"),
        (["--hit-ratio", "1.1"], "'1.1' is not a share from 0 to 1, such as 0.95"),
        (["--hit-ratio", "nan"], "'nan' is not a share"),
        (["--hit-ratio", "most"], "'most' is not a share"),
        (["--prices", "pyproject.toml"], "Invalid value for --prices: pyproject.toml is not JSON"),
        (["--prices", "none.json"], "none.json: No such file or directory"),
    ],
)
def test_wrong_usage(app: Flask, arguments: list[str], told: str) -> None:
    result = _run(app, *arguments)
    assert result.exit_code == 2
    assert told in result.output
