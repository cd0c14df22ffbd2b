"""Tests of the image service when Python code calls it."""

import re
import threading
import time
from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from flask import Flask
from PIL import Image

from app.components import components_of
from app.core.errors import NotFound, StoreBusy, StoreUnreachable, TooLarge
from app.core.objects import ObjectFacts
from app.core.threads import Bulkhead
from app.services import images as service_module
from app.services.images import ImageService
from tests.pictures import animation, noise, picture

PNG = picture()


@pytest.fixture
def service(app: Flask) -> ImageService:
    """Return the image service of an application."""
    return components_of(app).images


def _bytes(service: ImageService, key: str) -> bytes:
    cached = service.fetch(key)
    try:
        return cached.body.read()
    finally:
        cached.body.close()


def test_upload_image_takes_paths_files_and_bytes(service: ImageService, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        stored = [service.upload_image(source) for source in (path, str(path), file, BytesIO(PNG), PNG)]
    assert [image.created for image in stored] == [True, False, False, False, False]
    assert len({image.key for image in stored}) == 1
    assert stored[0].url == f"/api/images/{stored[0].key}"
    assert _bytes(service, stored[0].key) == PNG


def test_upload_pil_image_stores_a_png(service: ImageService) -> None:
    image = service.upload_pil_image(Image.new("RGB", (20, 10), "teal"), "ai_generated.png", "users/123")
    assert (image.key, image.width, image.height) == ("users/123/ai_generated.png", 20, 10)
    with Image.open(BytesIO(_bytes(service, image.key))) as read:
        assert (read.format, read.size, read.getpixel((0, 0))) == ("PNG", (20, 10), (0, 128, 128))


def test_the_facts_about_the_picture_are_stored_with_it(service: ImageService) -> None:
    half = Image.new("RGBA", (40, 20), (255, 0, 0, 255))
    half.paste((0, 0, 0, 0), (0, 0, 20, 20))
    first = service.upload_pil_image(half)
    again = service.upload_pil_image(half)
    assert first.info == again.info
    assert first.info
    assert (first.info.width, first.info.height, first.info.frames, first.info.has_alpha) == (40, 20, 1, True)
    assert 5 <= len(b64decode(first.info.thumbhash, validate=True)) <= 30
    cached = service.fetch(first.key)
    cached.body.close()
    assert service.stored_info(cached.facts) == first.info
    ((listed,), _) = service.list(details=True)
    assert listed.info == first.info
    ((listed,), _) = service.list()
    assert listed.info is None


def test_facts_that_belong_to_another_version_are_not_used(service: ImageService) -> None:
    service.upload_image(noise(1), "a.png")
    cached = service.fetch("a.png")
    cached.body.close()
    service.upload_image(noise(2), "a.png")
    assert service.stored_info(cached.facts) is None


def test_an_animation_has_its_number_of_frames(service: ImageService) -> None:
    info = service.upload_image(animation(3, "GIF")).info
    assert info
    assert (info.width, info.height, info.frames) == (4, 4, 3)


def test_variant_url_returns_paths_and_signs_what_is_not_listed(service: ImageService) -> None:
    key = service.upload_image(noise(1), "me.png", "users/7").key
    assert service.variant_url(key, "thumb") == "/api/images/users/7/me.png/thumb"
    assert service.variant_url(key, "w640", "webp") == "/api/images/users/7/me.png/w640.webp"
    path, _, query = service.variant_url(key, "w32,h32,cover", "webp", expires_at=2**31).partition("?")
    assert path == "/api/images/users/7/me.png/w32,h32,cover.webp"
    assert re.fullmatch(r"exp=2147483648&sig=[A-Za-z0-9_-]{22,}", query)


def test_upload_pil_image_in_another_format(service: ImageService) -> None:
    image = service.upload_pil_image(Image.new("RGBA", (20, 10)), image_format="webp")
    assert image.content_type == "image/webp"


def test_a_file_that_is_too_large_is_not_read_to_the_end(service: ImageService) -> None:
    class Endless(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size
            assert 0 < size <= 10 * 1024 * 1024 + 1
            return bytes(size)

    with pytest.raises(TooLarge):
        service.upload_image(Endless())


def test_an_image_is_not_cached_unless_the_store_acknowledged_it(
    service: ImageService, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = components_of(app)

    def away(*args: object, **kwargs: object) -> None:
        raise StoreUnreachable

    monkeypatch.setattr(parts.store, "put", away)
    with pytest.raises(StoreUnreachable):
        service.upload_image(PNG)
    assert parts.cache.totals().entries == 0


def test_cached_images_are_available_while_the_store_is_unavailable(
    service: ImageService, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = service.upload_image(noise(1), "a.png")

    def away(*args: object, **kwargs: object) -> None:
        raise StoreUnreachable

    monkeypatch.setattr(components_of(app).store, "get", away)
    assert _bytes(service, known.key) == noise(1)
    with pytest.raises(StoreUnreachable):
        service.fetch("b.png")


def test_an_image_whose_deletion_failed_is_not_served_from_the_cache(
    service: ImageService, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = service.upload_image(PNG)
    delete = components_of(app).store.delete

    def deletes_then_fails(key: str) -> None:
        delete(key)
        raise StoreUnreachable

    monkeypatch.setattr(components_of(app).store, "delete", deletes_then_fails)
    with pytest.raises(StoreUnreachable):
        service.delete(image.key)
    with pytest.raises(NotFound):
        service.fetch(image.key)


def test_a_failed_deletion_keeps_the_cached_image(
    service: ImageService, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = service.upload_image(PNG)

    def away(*args: object, **kwargs: object) -> None:
        raise StoreUnreachable

    monkeypatch.setattr(components_of(app).store, "head", away)
    with pytest.raises(StoreUnreachable):
        service.delete(image.key)
    assert _bytes(service, image.key) == PNG


def test_simultaneous_overwrites_all_succeed(service: ImageService) -> None:
    images = [noise(number, (20 + number, 20)) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        stored = list(pool.map(lambda data: service.upload_image(data, "me.png"), images * 5))
    assert all(image.created for image in stored)
    assert _bytes(service, "me.png") in images


def test_list_all_returns_the_images_of_every_page(
    service: ImageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "_PAGE_SIZE", 2)
    keys = [service.upload_image(PNG, name=f"{number}.png", folder="a").key for number in range(5)]
    service.upload_image(PNG, name="other.png")
    assert [image.key for image in service.list_all("a/")] == keys
    assert list(service.list_all("none/")) == []


def test_a_listing_builds_no_urls(service: ImageService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL may take a signature or a request to the store."""
    keys = [service.upload_image(PNG, name=f"{number}.png").key for number in range(3)]
    made: list[str] = []
    monkeypatch.setattr(service.urls, "url_of", made.append)
    assert [image.key for image in service.list_all()] == keys
    assert made == []


@pytest.mark.parametrize(
    "call",
    [
        lambda service: service.upload_image(PNG, "a.png"),
        lambda service: service.delete("a.png"),
        lambda service: service.list(),
        lambda service: service.list(details=True),
        lambda service: service.fetch("a.png"),
    ],
    ids=["upload", "delete", "list", "details", "fetch"],
)
def test_all_calls_to_the_store_go_through_the_bulkhead(
    app: Flask, service: ImageService, call: Callable[[ImageService], object]
) -> None:
    bulkhead = Bulkhead(0, max_waiting=1, silence=0.05)
    service._bulkhead = bulkhead
    components_of(app).cache._fill._bulkhead = bulkhead
    with pytest.raises(StoreBusy):
        call(service)


def test_all_listings_share_the_threads_that_fetch_details(
    service: ImageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        service.upload_image(PNG, f"{number}.png")
    now, most, lock, head = 0, 0, threading.Lock(), service._store.head

    def counted(key: str) -> ObjectFacts:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1
        return head(key)

    monkeypatch.setattr(service._store, "head", counted)
    with ThreadPoolExecutor(6) as pool:
        pages = [pool.submit(service.list, details=True) for _ in range(6)]
        assert [len(page.result()[0]) for page in pages] == [20] * 6
    assert most <= service_module._DETAIL_THREADS
