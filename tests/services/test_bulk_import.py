"""From a directory into the store."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cache.disk_cache import DiskCache
from app.config.settings import Config
from app.core.errors import InvalidKey, NotFound, StoreRefused, StoreUnreachable
from app.core.object_keys import content_addressed_key, with_proof
from app.core.object_metadata import original_name
from app.core.objects import FORMATS
from app.imaging.check import decode_image
from app.services import bulk_import as module
from app.services.bulk import Outcome, Result
from app.services.bulk_import import Importer
from app.stores.base import BaseStore
from tests.pictures import noise, picture, png_claiming

Make = Callable[..., Importer]

PNG = FORMATS["png"]


@pytest.fixture
def importer(config: Config, store: BaseStore, cache: DiskCache, source: Path) -> Make:
    """Makes an importer of `source` with the options given."""

    def make(**options: Any) -> Importer:
        return Importer(config, store, cache, source, **options)

    return make


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each image had that was decoded."""
    sizes: list[int] = []

    def counting(cleaned: Any, limits: Any) -> Any:
        sizes.append(len(cleaned.data))
        return decode_image(cleaned, limits)

    monkeypatch.setattr(module, "decode_image", counting)
    return sizes


def _bytes(store: BaseStore, key: str) -> bytes:
    stored = store.get(key)
    assert stored is not None
    with stored:
        return stored.body.read()


def _keys(store: BaseStore) -> list[str]:
    return [facts.key for facts in store.list().objects]


@pytest.mark.parametrize("folder", [None, "users/1"])
def test_keys_are_made_from_the_bytes(
    importer: Make, store: BaseStore, source: Path, folder: str | None
) -> None:
    (source / "some name ü.txt").write_bytes(noise(1))
    assert importer(folder=folder).bring("some name ü.txt").outcome is Outcome.DONE
    key = content_addressed_key(noise(1), PNG, folder)
    assert (_keys(store), _bytes(store, key)) == ([key], noise(1))
    assert store.head(key).content_type == "image/png"


def test_a_second_run_decodes_nothing(
    importer: Make, store: BaseStore, source: Path, decoded: list[int]
) -> None:
    (source / "a.png").write_bytes(noise(1))
    (source / "with metadata.jpg").write_bytes(picture("JPEG", comment=b"taken by me"))
    for outcome in (Outcome.DONE, Outcome.THERE):
        for name in ("a.png", "with metadata.jpg"):
            assert importer().bring(name) == Result(name, outcome)
    assert len(decoded) == 2
    assert b"taken by me" not in b"".join(_bytes(store, key) for key in _keys(store))


def test_names_are_kept_and_a_second_run_decodes_nothing(
    importer: Make, store: BaseStore, source: Path, decoded: list[int]
) -> None:
    (source / "me").mkdir()
    (source / "me" / "IMG_1.PNG").write_bytes(noise(1))
    for outcome in (Outcome.DONE, Outcome.THERE):
        assert importer(keep_names=True, folder="users").bring("me/IMG_1.PNG").outcome is outcome
    assert (_keys(store), len(decoded)) == (["users/me/IMG_1.png"], 1)


@pytest.mark.parametrize(("mine", "theirs"), [(noise(1), noise(2)), (noise(1), noise(1, (32, 32)))])
def test_nothing_is_replaced(
    importer: Make, store: BaseStore, source: Path, mine: bytes, theirs: bytes
) -> None:
    store.put("a.png", theirs, content_type="image/png")
    (source / "a.png").write_bytes(mine)
    reason = "Another image is stored under this name. It was left as it is."
    assert importer(keep_names=True).bring("a.png") == Result("a.png", Outcome.FAILED, reason)
    assert _bytes(store, "a.png") == theirs


@pytest.mark.parametrize(
    "key",
    [
        content_addressed_key(noise(1), PNG),
        content_addressed_key(noise(1), PNG, "users/1"),
        "generated/2026/11/20261122_085704_c6309f4ffa434fac865b433f.png",
    ],
)
def test_keys_that_never_change_meaning_are_kept(
    importer: Make, store: BaseStore, source: Path, key: str
) -> None:
    (source / key).parent.mkdir(parents=True)
    (source / key).write_bytes(noise(1))
    assert importer(keep_names=True).bring(key) == Result(key, Outcome.DONE)
    assert _keys(store) == [key]


@pytest.mark.parametrize(
    ("name", "data", "options", "reason"),
    [
        ("a.txt", b"hello", {"strict": True}, "Unsupported image format"),
        ("a.png", b"", {}, "Unsupported image format"),
        ("a.png", noise(1)[:-600], {}, "damaged or incomplete"),
        ("a.png", png_claiming(60_000, 60_000), {}, "too many pixels"),
        ("no such file", None, {}, "No such file or directory"),
        ("back\\slash.png", noise(1), {"keep_names": True}, "The name can't be used"),
        ("IMG_1.HEIC", b"\0\0\0\x18ftypheic\0\0\0\0heicmif1", {}, "Unsupported image format: HEIC"),
        ("drawing.svg", b"<svg/>", {}, "Unsupported image format: SVG"),
        (content_addressed_key(noise(2), PNG), noise(1), {"keep_names": True}, "the bytes of another image"),
    ],
)
def test_what_fails_says_why(
    importer: Make,
    store: BaseStore,
    source: Path,
    name: str,
    data: bytes | None,
    options: dict[str, Any],
    reason: str,
) -> None:
    if data is not None:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    result = importer(**options).bring(name)
    assert (result.name, result.outcome) == (name, Outcome.FAILED)
    assert reason in result.reason
    assert _keys(store) == []


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("Thumbs.db", b"\xd0\xcf\x11\xe0"),
        ("notes.txt", b"hello"),
        ("IMG_1.xmp", b"<x:xmpmeta/>"),
        ("IMG_1.MOV", b"\0\0\0\x14ftypqt  "),
        ("report.pdf", b"%PDF-1.7"),
        ("film", b"x" * (20 << 20)),
    ],
)
def test_what_is_no_image_is_skipped(importer: Make, source: Path, name: str, data: bytes) -> None:
    (source / name).write_bytes(data)
    skipped = importer().bring(name)
    assert (skipped.outcome, skipped.reason != "") == (Outcome.SKIPPED, True)
    assert importer(strict=True).bring(name).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Trip 2026/IMG 0010.JPG", "me/Trip-2026/IMG-0010.png"),
        ("Müller.png", "me/Muller.png"),
        ("Screenshot 2026-11-30 at 10.00.00.png", "me/Screenshot-2026-11-30-at-10.00.00.png"),
    ],
)
def test_names_of_real_life_are_kept(
    importer: Make, store: BaseStore, source: Path, name: str, key: str
) -> None:
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_bytes(noise(1))
    for outcome in (Outcome.DONE, Outcome.THERE):
        assert importer(keep_names=True, folder="me").bring(name) == Result(name, outcome)
    assert original_name(store.head(key).metadata) == name


def _sidecar(source: Path, name: str, content: Any) -> None:
    path = source / ".metadata" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


DIGEST = hashlib.sha256(noise(1)).hexdigest()


@pytest.mark.parametrize("keep_names", [True, False])
def test_exported_metadata_comes_back(
    importer: Make, store: BaseStore, source: Path, keep_names: bool
) -> None:
    (source / "a.png").write_bytes(noise(1))
    _sidecar(source, "a.png", {"sha256": DIGEST, "metadata": {"prompt": "a cat"}})
    assert importer(keep_names=keep_names).bring("a.png") == Result("a.png", Outcome.DONE)
    (key,) = _keys(store)
    assert store.head(key).metadata == {"prompt": "a cat"}


@pytest.mark.parametrize(
    "content",
    [
        "not JSON",
        "[" * 60_000,
        "[]",
        {"sha256": DIGEST},
        {"sha256": "0" * 64, "metadata": {"prompt": "of another image"}},
        {"sha256": DIGEST, "metadata": {"Prompt": "x"}},
        {"sha256": DIGEST, "metadata": {"prompt": "two\nlines"}},
        {"sha256": DIGEST, "metadata": {"prompt": " x"}},
        {"sha256": DIGEST, "metadata": {"prompt": "ü"}},
        {"sha256": DIGEST, "metadata": {"prompt": 7}},
        {"sha256": DIGEST, "metadata": {"prompt": "x" * 2048}},
    ],
)
def test_metadata_that_cant_be_kept_costs_no_image(
    importer: Make, store: BaseStore, source: Path, content: Any
) -> None:
    (source / "a.png").write_bytes(noise(1))
    _sidecar(source, "a.png", content)
    result = importer(keep_names=True).bring("a.png")
    assert (result.outcome, "without its exported metadata" in result.reason) == (Outcome.DONE, True)
    assert store.head("a.png").metadata == {}


def test_a_file_that_is_too_large_is_not_read(
    config: Config, store: BaseStore, cache: DiskCache, source: Path
) -> None:
    with open(source / "huge.png", "wb") as file:
        file.write(noise(1))
        file.truncate(2**40)
    small = Importer(replace(config, max_upload_bytes=1000), store, cache, source)
    reason = "The image is larger than the 1000 bytes allowed."
    assert small.bring("huge.png") == Result("huge.png", Outcome.FAILED, reason)


@pytest.mark.parametrize(
    ("exchange", "reason"),
    [
        (lambda path: path.symlink_to("/etc/hostname"), os.strerror(errno.ELOOP)),
        (os.mkfifo, "This is not a regular file."),
    ],
)
def test_a_file_exchanged_since_it_was_found_is_not_followed(
    importer: Make, source: Path, exchange: Callable[[Path], None], reason: str
) -> None:
    exchange(source / "a.png")
    assert importer().bring("a.png") == Result("a.png", Outcome.FAILED, reason)


def test_a_store_that_refuses_to_say_is_asked_by_the_put(
    importer: Make, store: BaseStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without s3:ListBucket, S3 answers 403 for objects that are not there."""

    def head(key: str) -> Any:
        raise StoreRefused

    (source / "a.png").write_bytes(noise(1))
    monkeypatch.setattr(store, "head", head)
    assert importer().bring("a.png").outcome is Outcome.DONE


def test_another_image_under_a_key_made_from_these_bytes_is_left(
    importer: Make, store: BaseStore, source: Path
) -> None:
    (source / "a.png").write_bytes(noise(1))
    other = noise(1)[:-1] + b"x"
    store.put(content_addressed_key(noise(1), PNG), other, content_type="image/png")
    assert importer().bring("a.png").outcome is Outcome.FAILED
    stored = store.get(content_addressed_key(noise(1), PNG))
    assert stored is not None
    with stored:
        assert stored.body.read() == other


def test_an_imported_image_under_a_generated_key_is_proven_to_be_this_one(
    importer: Make, store: BaseStore, source: Path
) -> None:
    key = "generated/2026/11/20261122_080509_" + "0" * 24 + ".png"
    (source / key).parent.mkdir(parents=True)
    (source / key).write_bytes(noise(1))
    assert importer(keep_names=True).bring(key).outcome is Outcome.DONE
    assert with_proof(store.head(key), hashlib.sha256(noise(1)).hexdigest()).is_immutable


def test_one_that_comes_meanwhile_is_there_already(
    importer: Make, store: BaseStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "a.png").write_bytes(noise(1))
    store.put("a.png", noise(1), content_type="image/png")
    head, asked = store.head, iter([NotFound()])

    def missing_at_first(key: str) -> Any:
        for exc in asked:
            raise exc
        return head(key)

    monkeypatch.setattr(store, "head", missing_at_first)
    assert importer(keep_names=True).bring("a.png").outcome is Outcome.THERE


def test_a_store_that_is_away_fails_the_file(
    importer: Make, store: BaseStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def head(key: str) -> Any:
        raise StoreUnreachable(detail="HeadObject: 503 SlowDown")

    (source / "a.png").write_bytes(noise(1))
    monkeypatch.setattr(store, "head", head)
    result = importer().bring("a.png")
    assert result.outcome is Outcome.FAILED
    assert result.reason.endswith("[HeadObject: 503 SlowDown]")


def test_the_cache_is_not_filled_but_forgets_that_the_image_was_missing(
    importer: Make, store: BaseStore, cache: DiskCache, source: Path
) -> None:
    def load(key: str) -> Any:
        return lambda etag: store.get(key)

    (source / "a.png").write_bytes(noise(1))
    with pytest.raises(NotFound):
        cache.fetch("a.png", load("a.png"))
    importer(keep_names=True).bring("a.png")
    assert cache.totals().entries == 0
    cache.fetch("a.png", load("a.png")).body.close()


def test_photos_are_turned_and_their_keys_fit(importer: Make, store: BaseStore, source: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (source / "a.jpg").write_bytes(picture("JPEG", (40, 20), exif=exif))
    assert [importer().bring("a.jpg").outcome for _ in range(2)] == [Outcome.DONE, Outcome.THERE]
    (key,) = _keys(store)
    assert key == content_addressed_key(_bytes(store, key), FORMATS["jpeg"])


@pytest.mark.parametrize("folder", ["../up", "a//b", "ü", "x.png"])
def test_a_bad_folder_shows_at_once(importer: Make, folder: str) -> None:
    with pytest.raises(InvalidKey):
        importer(folder=folder)
