"""`flask bucket cost`: it prints the setup guide's prices to the cent, and can count the stored images."""

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from app.components import components_of
from app.core.errors import StoreRefused
from app.ops.cli.cost import PRICES, price
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
        # "Typical small app cost: $1-5/month": the same images with 250,000 views
        (10_000, 500, 250_000, ("without_cache", "total"), "2.47"),
        # An empty store still pays for requests
        (0, 0, 25_000, ("without_cache", "total"), "0.01"),
    ],
)
def test_amounts_match_the_setup_guide(
    app: Flask, images: int, kilobytes: int, views: int, line: tuple[str, ...], dollars: str
) -> None:
    """The guide assumes us-east-1, no cache, 1 GB = 1,000,000 KB, and nothing else in the account."""
    found: Any = _json(app, "--images", images, "--size", kilobytes, "--views", views)
    for name in line:
        found = found[name]
    assert found == dollars


@pytest.mark.parametrize(
    ("name", "units", "dollars"),
    [
        ("storage", 0, "0"),
        ("storage", 1, "0.023"),
        ("storage", 51_200, "1177.6"),
        ("storage", 51_201, "1177.622"),
        ("storage", 512_001, "11315.221"),
        ("transfer_out", 100, "0"),
        ("transfer_out", 101, "0.09"),
        ("transfer_out", 10_240, "912.6"),
        ("transfer_out", 153_601, "11562.25"),
        ("put_requests", 500, "0.0025"),
    ],
)
def test_each_tier_has_its_own_price(name: str, units: int, dollars: str) -> None:
    assert price(name, Decimal(units)) == Decimal(dollars)


def test_the_price_file_names_its_source_and_date() -> None:
    assert (PRICES["source"], PRICES["region"]) == ("https://aws.amazon.com/s3/pricing/", "us-east-1")
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", PRICES["date"])


def test_json_contains_the_numbers_and_the_charges(app: Flask) -> None:
    found = _json(app, "--images", 10_000, "--size", 500, "--views", 1_000_000)
    prices = found.pop("prices")
    assert set(prices) == {"date", "source", "region", "currency"}
    assert found == {
        "images": 10_000,
        "bytes": 5_000_000_000,
        "views": 1_000_000,
        "upload_once": "0.05",
        "without_cache": {
            "storage": "0.12",
            "get_requests": "0.40",
            "transfer_out": "36.00",
            "total": "36.52",
        },
    }


def test_the_table_lists_each_charge(app: Flask) -> None:
    lines = _run(app, "--images", 10_000, "--size", 500, "--views", 1_000_000).output.splitlines()
    assert lines[:2] == ["10,000 images, 5,000,000,000 bytes", "1,000,000 views per month"]
    assert lines[4:10] == [
        "storage               0.12",
        "GET requests          0.40",
        "transfer out         36.00",
        "per month            36.52",
        "",
        "Uploading the images costs 0.05 once.",
    ]
    assert lines[10].startswith("These are the charges if S3 serves every view.")


def test_without_options_the_store_is_counted_and_charges_for_views_are_unknown(app: Flask) -> None:
    service = components_of(app).images
    stored = [service.upload_image(noise(number)) for number in range(3)]
    found = _json(app)
    assert (found["images"], found["bytes"]) == (3, sum(image.size for image in stored))
    assert (found["views"], found["without_cache"]["total"]) == (None, None)
    text = _run(app).output
    assert text.startswith("These images are not in S3. The estimate is what they would cost there.\n")
    assert "The number of views is unknown: pass --views." in text
    assert re.search(r"GET requests +\?\ntransfer out +\?\nper month +\?\n", text)
    assert "not in S3" not in _run(app, "--images", 1, "--size", 1).output


def test_an_empty_store_prints_an_example_that_works(app: Flask) -> None:
    text = _run(app).output
    assert "The store contains no images yet (STORE=local)." in text
    (example,) = (line.strip() for line in text.splitlines() if "--images" in line)
    lines = _run(app, *example.removeprefix("flask bucket cost ").split()).output.splitlines()
    assert lines[0] == "10,000 images, 5,000,000,000 bytes"
    assert lines[7].split() == ["per", "month", "36.52"]
    assert _json(app)["images"] == 0


def test_a_store_that_refuses_listing_is_an_error(s3_app: Flask, s3: S3Server) -> None:
    s3.fault = refusal("403 Forbidden", "AccessDenied", "GET")
    result = _run(s3_app)
    assert result.exit_code == 1
    assert f"Error: {StoreRefused.message}" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "5"], "Pass both --images and --size"),
        (["--size", "5"], "Pass both --images and --size"),
        (["--images", "-1", "--size", "5"], "not in the range"),
    ],
)
def test_wrong_options_are_usage_errors(app: Flask, arguments: list[str], message: str) -> None:
    result = _run(app, *arguments)
    assert result.exit_code == 2
    assert message in result.output
