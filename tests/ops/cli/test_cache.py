"""`flask cache …`: stats, check, purge, clear, warm."""

import json
from dataclasses import replace
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from app.cache.lookup import CachedObject, CacheStatus
from app.components import components_of
from app.core.errors import StoreRefused, StoreUnreachable
from tests.pictures import noise
from tests.s3server import S3Server, refusal


def _run(app: Flask, *arguments: str) -> Result:
    return app.test_cli_runner().invoke(args=["cache", *arguments])


def _json(app: Flask, *arguments: str) -> dict[str, Any]:
    result = _run(app, *arguments, "--json")
    loaded: dict[str, Any] = json.loads(result.output)
    return loaded


@pytest.fixture
def keys(app: Flask) -> list[str]:
    """The keys of three stored images, which are all cached."""
    return [components_of(app).images.upload_image(noise(number), folder="album").key for number in range(3)]


def test_stats_prints_entries_and_bytes(app: Flask, keys: list[str]) -> None:
    printed = _json(app, "stats")
    assert (printed["entries"], printed["max_bytes"], printed["reserved_bytes"]) == (3, 1024**3, 0)
    assert printed["bytes"] == components_of(app).cache.totals().taken
    assert "1,073,741,824" in _run(app, "stats").output


def test_purge_removes_images_and_warm_fetches_them(app: Flask, keys: list[str]) -> None:
    assert _json(app, "purge", keys[0], keys[1], "never/seen.png") == {"purged": 2}
    assert _json(app, "stats")["entries"] == 1
    assert _json(app, "warm", "--prefix", "album/") == {
        "images": 3,
        "brought": 2,
        "there_already": 1,
        "without_room": 0,
        "failed": 0,
    }
    assert _json(app, "stats")["entries"] == 3
    assert _json(app, "warm", "--prefix", "other/")["images"] == 0


def test_purge_refuses_invalid_keys(app: Flask) -> None:
    result = _run(app, "purge", "../x")
    assert result.exit_code == 2
    assert "not a valid image key" in result.output


def test_clear_leaves_the_images_in_the_store(app: Flask, keys: list[str]) -> None:
    assert _json(app, "clear") == {"removed": 3}
    assert len(components_of(app).store.list().objects) == 3


def test_check_reports_differences_and_fix_repairs_them(app: Flask, keys: list[str]) -> None:
    assert _json(app, "check")["clean"] is True
    cache = components_of(app).cache
    (cache._layout.root / "objects" / keys[0]).unlink()
    assert _run(app, "check").exit_code == 1
    assert _json(app, "check") == {
        "entries": 3,
        "rows_without_file": 1,
        "files_without_row": 0,
        "bytes_miscounted": 0,
        "clean": False,
        "fixed": False,
    }
    assert _json(app, "check", "--fix")["fixed"] is True
    assert _run(app, "check").exit_code == 0


def test_a_damaged_index_is_reported_and_rebuilt_by_fix(app: Flask, keys: list[str]) -> None:
    cache = components_of(app).cache
    cache._index.close()
    cache._layout.index.write_bytes(b"no database" * 500)
    for command in ("stats", "check", "clear"):
        result = _run(app, command)
        assert result.exit_code == 1
        assert "flask cache check --fix" in result.output
    printed = _json(app, "check", "--fix")
    assert (printed["entries"], printed["clean"]) == (3, True)
    assert _json(app, "stats")["entries"] == 3


def test_warm_exits_with_status_1_if_images_fail(
    app: Flask, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    components_of(app).cache.clear()
    store = components_of(app).store
    monkeypatch.setattr(store, "get", lambda key, **options: store.head("no/such.png"))
    result = _run(app, "warm", "--json", "--concurrency", "2")
    assert (result.exit_code, json.loads(result.output)["failed"]) == (1, 3)


@pytest.mark.parametrize(
    ("status", "heading", "exit_code"),
    [
        (CacheStatus.MISS, "brought", 0),
        (CacheStatus.HIT, "there_already", 0),
        (CacheStatus.REVALIDATED, "there_already", 0),
        (CacheStatus.COLLAPSED, "there_already", 0),
        (CacheStatus.BYPASS, "without_room", 0),
        (CacheStatus.STALE, "failed", 1),
    ],
)
def test_warm_counts_each_image_once(
    app: Flask,
    keys: list[str],
    monkeypatch: pytest.MonkeyPatch,
    status: CacheStatus,
    heading: str,
    exit_code: int,
) -> None:
    service = components_of(app).images
    fetch = service.fetch

    def fetched(key: str) -> CachedObject:
        return replace(fetch(key), status=status)

    monkeypatch.setattr(service, "fetch", fetched)
    result = _run(app, "warm", "--json")
    printed = json.loads(result.output)
    assert (result.exit_code, printed[heading]) == (exit_code, 3)
    assert printed.pop("images") == sum(printed.values()) == 3


def test_warm_shows_progress_of_listing_and_fetching(app: Flask, keys: list[str]) -> None:
    assert _run(app, "warm").output.splitlines()[:2] == ["Listing", "Warming"]


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ("403 Forbidden", "AccessDenied", StoreRefused.message),
        ("503 Service Unavailable", "SlowDown", StoreUnreachable.message),
    ],
)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_warm_prints_one_line_if_the_listing_fails(
    s3_app: Flask, s3: S3Server, options: tuple[str, ...], status: str, code: str, message: str
) -> None:
    s3.fault = refusal(status, code, "GET")
    result = _run(s3_app, "warm", *options)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {message}")
    assert f"[ListObjectsV2: {status[:3]} {code} (" in result.stderr
    assert result.stderr.count("\n") == 1
