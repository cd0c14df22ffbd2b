"""`flask cache …`: stats, check, purge, clear, warm."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask

from app import create_app
from app.cache.lookup import CachedObject, CacheStatus
from app.components import components_of
from app.config.settings import Config
from app.core.errors import Busy, StoreRefused, StoreUnreachable
from app.core.variant_keys import VariantPath
from app.services import warming
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
    assert (printed["variants"], printed["variant_bytes"]) == (0, 0)
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


NAMED = "users/me.png"


@pytest.fixture
def made(app: Flask, keys: list[str]) -> list[str]:
    """The keys of two images with two variants each."""
    components_of(app).images.upload_image(noise(9), "me", "users")
    for key in (keys[0], NAMED):
        assert _json(app, "warm", "--prefix", key, "--variants", "w32.webp,thumb.jpg")["made"] == 2
    return [keys[0], NAMED]


def _variant(app: Flask, key: str, name: str) -> CacheStatus:
    """Return the status of a variant in the cache."""
    parts = components_of(app)
    path, spec = parts.variant_rules.canonical(VariantPath(key, *name.split(".")))
    cached = parts.variants.fetch(path, spec, is_listed=True)
    cached.body.close()
    return cached.status


def test_stats_counts_variants_separately(app: Flask, made: list[str]) -> None:
    printed = _json(app, "stats")
    assert (printed["entries"], printed["variants"], printed["variant_bytes"]) == (8, 4, 4 * 4096)


def test_purge_takes_variants_along(app: Flask, made: list[str]) -> None:
    for key in made:
        assert _json(app, "purge", key) == {"purged": 1}
    assert (_json(app, "stats")["variants"], _json(app, "stats")["entries"]) == (0, 2)
    assert _variant(app, made[0], "w32.webp") is CacheStatus.MISS
    assert _json(app, "check")["clean"] is True


def test_clear_removes_variants(app: Flask, made: list[str]) -> None:
    assert _json(app, "clear") == {"removed": 8}
    assert _json(app, "stats")["variants"] == 0


def test_check_finds_and_repairs_variants(app: Flask, made: list[str]) -> None:
    layout = components_of(app).cache._layout
    for key in made:
        Path(layout.variant_paths(key)[0]).unlink()
    (layout.root / "variants" / made[0] / "w99.webp").write_bytes(b"a stray")
    found = _json(app, "check")
    assert (found["rows_without_file"], found["files_without_row"]) == (2, 1)
    assert _json(app, "check", "--fix")["fixed"] is True
    assert (_json(app, "check")["clean"], _json(app, "stats")["variants"]) == (True, 2)


def test_warm_makes_the_variants_of_all_images_once(app: Flask, keys: list[str]) -> None:
    counts = {"images": 3, "made": 12, "there_already": 0, "without_room": 0, "failed": 0}
    arguments = ("warm", "--variants", "thumb, w32,still.webp,thumb.webp,w16.jpg", "--concurrency", "2")
    assert _json(app, *arguments) == counts
    assert _json(app, *arguments) == counts | {"made": 0, "there_already": 12}
    for name in ("thumb.avif", "thumb.webp", "w32,still.webp", "w16.jpg"):
        assert _variant(app, keys[1], name) is CacheStatus.HIT
    assert _json(app, "stats")["variants"] == 12


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("w33", "w33 is not permitted without a signature by VARIANTS, VARIANT_WIDTHS and VARIANT_PRESETS"),
        ("thumb,w64,h64,cover", "h64 is not permitted"),
        ("w32.tiff", "unknown or out of range: 'w32.tiff'"),
        ("w32.gif", "w32.gif is not permitted"),
        (" ,", "names no variant"),
    ],
)
def test_warm_refuses_variants_that_are_not_listed(app: Flask, variants: str, message: str) -> None:
    result = _run(app, "warm", "--variants", variants)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_warm_reports_damaged_images_and_goes_on(app: Flask, keys: list[str]) -> None:
    store = components_of(app).store
    store.put("album/damaged.png", noise(1)[:600], content_type="image/png")
    result = _run(app, "warm", "--variants", "w32,thumb.webp", "--json")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert printed == {"images": 4, "made": 9, "there_already": 0, "without_room": 0, "failed": 3}
    assert result.stderr.splitlines()[0].startswith("failed: album/damaged.png: ")
    assert len(result.stderr.splitlines()) == 1


def test_warm_makes_no_variants_of_images_whose_keys_have_no_extension(
    app: Flask, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = components_of(app).images
    listed = list(images.list_all())
    listed += [replace(listed[0], key="album/photo"), replace(listed[0], key="album//photo.png")]
    monkeypatch.setattr(images, "list_all", lambda prefix: iter(listed))
    result = _run(app, "warm", "--variants", "w32.webp", "--json")
    assert (result.exit_code, json.loads(result.stdout)["made"]) == (0, 3)
    assert result.stderr.splitlines() == [
        "Skipped 1 objects whose keys can't be used in a URL.",
        "Skipped 1 images whose keys don't end in an image extension.",
    ]


def test_warm_stops_with_an_image_that_the_store_does_not_return(
    app: Flask, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    components_of(app).cache.clear()
    gets: list[str] = []

    def away(key: str, **options: object) -> None:
        gets.append(key)
        raise StoreUnreachable

    monkeypatch.setattr(components_of(app).store, "get", away)
    result = _run(app, "warm", "--variants", "w32", "--prefix", keys[0], "--json")
    assert (result.exit_code, json.loads(result.stdout)["failed"], gets.count(keys[0])) == (1, 2, 1)


def test_warm_waits_while_too_many_variants_are_being_made(
    app: Flask, keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warming, "_RETRY_SECONDS", 0.0)
    variants = components_of(app).variants
    fetch = variants.fetch
    refused: list[object] = []

    def busy_at_first(*arguments: Any, **options: Any) -> CachedObject:
        if len(refused) < 3:
            refused.append(arguments)
            raise Busy
        return fetch(*arguments, **options)

    monkeypatch.setattr(variants, "fetch", busy_at_first)
    assert _json(app, "warm", "--variants", "w32.webp", "--prefix", keys[0])["made"] == 1
    assert len(refused) == 3


def test_warm_warns_if_the_cache_is_too_small(config: Config) -> None:
    small = create_app(replace(config, cache_max_bytes=1024 * 1024))
    images = components_of(small).images
    for number in range(4):
        images.upload_image(noise(number, (300, 300)))
    result = _run(small, "warm", "--variants", "w256.png", "--json")
    components_of(small).cache.close()
    assert json.loads(result.stdout)["made"] == 4
    assert "entries were evicted in the meantime" in result.stderr
