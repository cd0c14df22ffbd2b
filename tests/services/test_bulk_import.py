"""Tests of imports of the images in a directory into the store."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.cache.disk_cache import DiskCache
from app.core.errors import InvalidKey, NotFound, StoreRefused, StoreUnreachable
from app.core.object_keys import content_addressed_key, with_immutability
from app.core.object_metadata import ImageInfo, original_name
from app.core.objects import FORMATS
from app.imaging.check import decode_image
from app.services import bulk_import as module
from app.services.bulk import BulkOutcome, BulkReport, BulkResult
from app.services.bulk_import import Importer, find_files
from app.services.images import ImageService
from app.stores.base import BaseStore
from tests.pictures import noise, picture, png_claiming

Make = Callable[..., Importer]

PNG = FORMATS["png"]


@pytest.fixture
def importer(images: ImageService, source: Path) -> Make:
    """Return a function that creates an importer of `source` with the given options."""

    def make(**options: Any) -> Importer:
        return Importer(images, source, **options)

    return make


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that collects the sizes in bytes of the decoded images."""
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


def test_regular_files_are_found_in_order_and_others_are_skipped_with_a_reason(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for path in ("b.png", "a/2.png", "a/1.png", ".hidden", ".git/x.png", "a.d/z/deep.png"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")
    (tmp_path / "outside.png").write_bytes(b"")
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    (root / "inside.png").symlink_to(root / "b.png")
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "dangling").symlink_to(root / "no such file")
    os.mkfifo(root / "pipe.png")
    report = BulkReport()
    assert find_files(root, report) == ["b.png", "a/1.png", "a/2.png", "a.d/z/deep.png"]
    assert sorted((r.name, r.outcome, r.reason) for r in report.remarks) == [
        (".git", "skipped", "hidden"),
        (".hidden", "skipped", "hidden"),
        ("dangling", "skipped", "a symbolic link"),
        ("inside.png", "skipped", "a symbolic link"),
        ("link.png", "skipped", "a symbolic link"),
        ("loop", "skipped", "a symbolic link"),
        ("pipe.png", "skipped", "a special file"),
    ]


def test_the_directory_can_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert find_files(tmp_path / "link", BulkReport()) == ["a.png"]


def test_a_directory_that_cannot_be_read_is_reported_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refusing(path: str) -> object:  # chmod does not stop root
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    report = BulkReport()
    assert find_files(tmp_path, report) == []
    assert report.remarks == [BulkResult("closed", BulkOutcome.FAILED, "Permission denied")]


@pytest.mark.parametrize("folder", [None, "users/1"])
def test_keys_are_made_from_the_bytes(
    importer: Make, store: BaseStore, source: Path, folder: str | None
) -> None:
    (source / "some name ü.txt").write_bytes(noise(1))
    assert importer(folder=folder).import_file("some name ü.txt").outcome is BulkOutcome.DONE
    key = content_addressed_key(noise(1), PNG, folder)
    assert (_keys(store), _bytes(store, key)) == ([key], noise(1))
    assert store.head(key).content_type == "image/png"


def test_a_second_import_decodes_nothing(
    importer: Make, store: BaseStore, source: Path, decoded: list[int]
) -> None:
    (source / "a.png").write_bytes(noise(1))
    (source / "with metadata.jpg").write_bytes(picture("JPEG", comment=b"taken by me"))
    for outcome in (BulkOutcome.DONE, BulkOutcome.UNCHANGED):
        for name in ("a.png", "with metadata.jpg"):
            assert importer().import_file(name) == BulkResult(name, outcome)
    assert len(decoded) == 2
    assert b"taken by me" not in b"".join(_bytes(store, key) for key in _keys(store))


def test_a_second_import_that_keeps_names_decodes_nothing(
    importer: Make, store: BaseStore, source: Path, decoded: list[int]
) -> None:
    (source / "me").mkdir()
    (source / "me" / "IMG_1.PNG").write_bytes(noise(1))
    for outcome in (BulkOutcome.DONE, BulkOutcome.UNCHANGED):
        assert importer(keep_names=True, folder="users").import_file("me/IMG_1.PNG").outcome is outcome
    assert (_keys(store), len(decoded)) == (["users/me/IMG_1.png"], 1)


@pytest.mark.parametrize(("mine", "theirs"), [(noise(1), noise(2)), (noise(1), noise(1, (32, 32)))])
def test_no_stored_image_is_replaced(
    importer: Make, store: BaseStore, source: Path, mine: bytes, theirs: bytes
) -> None:
    store.put("a.png", theirs, content_type="image/png")
    (source / "a.png").write_bytes(mine)
    reason = (
        "Another image is already stored under this key and was not replaced. "
        "Use another name, or store this image in another folder."
    )
    assert importer(keep_names=True).import_file("a.png") == BulkResult("a.png", BulkOutcome.FAILED, reason)
    assert _bytes(store, "a.png") == theirs


@pytest.mark.parametrize(
    "key",
    [
        content_addressed_key(noise(1), PNG),
        content_addressed_key(noise(1), PNG, "users/1"),
        "generated/2026/11/20261122_085704_c6309f4ffa434fac865b433f.png",
    ],
)
def test_immutable_keys_are_kept(importer: Make, store: BaseStore, source: Path, key: str) -> None:
    (source / key).parent.mkdir(parents=True)
    (source / key).write_bytes(noise(1))
    assert importer(keep_names=True).import_file(key) == BulkResult(key, BulkOutcome.DONE)
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
        (content_addressed_key(noise(2), PNG), noise(1), {"keep_names": True}, "digest of a different image"),
    ],
)
def test_a_failure_has_a_reason(
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
    result = importer(**options).import_file(name)
    assert (result.name, result.outcome) == (name, BulkOutcome.FAILED)
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
def test_a_file_that_is_not_an_image_is_skipped(importer: Make, source: Path, name: str, data: bytes) -> None:
    (source / name).write_bytes(data)
    skipped = importer().import_file(name)
    assert (skipped.outcome, skipped.reason != "") == (BulkOutcome.SKIPPED, True)
    assert importer(strict=True).import_file(name).outcome is BulkOutcome.FAILED


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Trip 2026/IMG 0010.JPG", "me/Trip-2026/IMG-0010.png"),
        ("Müller.png", "me/Muller.png"),
        ("Screenshot 2026-11-30 at 10.00.00.png", "me/Screenshot-2026-11-30-at-10.00.00.png"),
    ],
)
def test_names_that_are_not_allowed_in_keys_are_stored_with_the_image(
    importer: Make, store: BaseStore, source: Path, name: str, key: str
) -> None:
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_bytes(noise(1))
    for outcome in (BulkOutcome.DONE, BulkOutcome.UNCHANGED):
        assert importer(keep_names=True, folder="me").import_file(name) == BulkResult(name, outcome)
    assert original_name(store.head(key).metadata) == name


def _sidecar(source: Path, name: str, content: Any) -> None:
    path = source / ".metadata" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


DIGEST = hashlib.sha256(noise(1)).hexdigest()


def _other_metadata(store: BaseStore, key: str) -> dict[str, str]:
    """Return the metadata without the facts about the picture, which the import stores with each image."""
    metadata = store.head(key).metadata
    info = ImageInfo.from_metadata(metadata)
    assert info is not None
    assert (info.width, info.height) == (64, 64)
    return {name: value for name, value in metadata.items() if name not in info.to_metadata()}


@pytest.mark.parametrize("keep_names", [True, False])
def test_exported_metadata_is_imported(
    importer: Make, store: BaseStore, source: Path, keep_names: bool
) -> None:
    (source / "a.png").write_bytes(noise(1))
    exported = {"prompt": "a cat", "width": "1"}  # the picture itself says how wide it is
    _sidecar(source, "a.png", {"sha256": DIGEST, "metadata": exported})
    assert importer(keep_names=keep_names).import_file("a.png") == BulkResult("a.png", BulkOutcome.DONE)
    (key,) = _keys(store)
    assert _other_metadata(store, key) == {"prompt": "a cat"}


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
def test_an_image_with_unusable_metadata_is_stored_without_it(
    importer: Make, store: BaseStore, source: Path, content: Any
) -> None:
    (source / "a.png").write_bytes(noise(1))
    _sidecar(source, "a.png", content)
    result = importer(keep_names=True).import_file("a.png")
    assert (result.outcome, "without its exported metadata" in result.reason) == (BulkOutcome.DONE, True)
    assert _other_metadata(store, "a.png") == {}


def test_exported_metadata_of_the_maximum_size_is_imported_without_further_facts(
    importer: Make, store: BaseStore, source: Path
) -> None:
    exported = {"comment": "x" * (2048 - len("comment"))}
    (source / "a.png").write_bytes(noise(1))
    _sidecar(source, "a.png", {"sha256": DIGEST, "metadata": exported})
    assert importer(keep_names=True).import_file("a.png") == BulkResult("a.png", BulkOutcome.DONE)
    assert store.head("a.png").metadata == exported


def test_a_file_that_is_too_large_is_not_read(importer: Make, images: ImageService, source: Path) -> None:
    with open(source / "huge.png", "wb") as file:
        file.write(noise(1))
        file.truncate(2**40)
    images.max_upload_bytes = 1000
    reason = "The image exceeds the limit of 1000 bytes."
    assert importer().import_file("huge.png") == BulkResult("huge.png", BulkOutcome.FAILED, reason)


@pytest.mark.parametrize(
    ("exchange", "reason"),
    [
        (lambda path: path.symlink_to("/etc/hostname"), os.strerror(errno.ELOOP)),
        (os.mkfifo, "This is not a regular file."),
    ],
)
def test_a_file_replaced_since_it_was_found_is_not_followed(
    importer: Make, source: Path, exchange: Callable[[Path], None], reason: str
) -> None:
    exchange(source / "a.png")
    assert importer().import_file("a.png") == BulkResult("a.png", BulkOutcome.FAILED, reason)


def test_an_image_is_put_if_the_store_does_not_reveal_whether_it_exists(
    importer: Make, store: BaseStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without s3:ListBucket, S3 returns 403 for missing objects."""

    def head(key: str) -> Any:
        raise StoreRefused

    (source / "a.png").write_bytes(noise(1))
    monkeypatch.setattr(store, "head", head)
    assert importer().import_file("a.png").outcome is BulkOutcome.DONE


def test_a_different_object_under_a_content_addressed_key_is_not_replaced(
    importer: Make, store: BaseStore, source: Path
) -> None:
    (source / "a.png").write_bytes(noise(1))
    other = noise(1)[:-1] + b"x"
    store.put(content_addressed_key(noise(1), PNG), other, content_type="image/png")
    assert importer().import_file("a.png").outcome is BulkOutcome.FAILED
    stored = store.get(content_addressed_key(noise(1), PNG))
    assert stored is not None
    with stored:
        assert stored.body.read() == other


def test_an_imported_image_under_a_generated_key_is_proven_immutable(
    importer: Make, store: BaseStore, source: Path
) -> None:
    key = "generated/2026/11/20261122_080509_" + "0" * 24 + ".png"
    (source / key).parent.mkdir(parents=True)
    (source / key).write_bytes(noise(1))
    assert importer(keep_names=True).import_file(key).outcome is BulkOutcome.DONE
    assert with_immutability(store.head(key), hashlib.sha256(noise(1)).hexdigest()).is_immutable


def test_an_image_that_was_stored_in_the_meantime_is_unchanged(
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
    assert importer(keep_names=True).import_file("a.png").outcome is BulkOutcome.UNCHANGED


def test_an_unreachable_store_fails_the_file(
    importer: Make, store: BaseStore, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def head(key: str) -> Any:
        raise StoreUnreachable(detail="HeadObject: 503 SlowDown")

    (source / "a.png").write_bytes(noise(1))
    monkeypatch.setattr(store, "head", head)
    result = importer().import_file("a.png")
    assert result.outcome is BulkOutcome.FAILED
    assert result.reason.endswith("[HeadObject: 503 SlowDown]")


def test_an_import_removes_the_negative_cache_entry_but_does_not_fill_the_cache(
    importer: Make, store: BaseStore, cache: DiskCache, source: Path
) -> None:
    def load(key: str) -> Any:
        return lambda etag: store.get(key)

    (source / "a.png").write_bytes(noise(1))
    with pytest.raises(NotFound):
        cache.fetch("a.png", load("a.png"))
    importer(keep_names=True).import_file("a.png")
    assert cache.totals().entries == 0
    cache.fetch("a.png", load("a.png")).body.close()


def test_photos_are_rotated_before_their_key_is_made(importer: Make, store: BaseStore, source: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (source / "a.jpg").write_bytes(picture("JPEG", (40, 20), exif=exif))
    assert [importer().import_file("a.jpg").outcome for _ in range(2)] == [
        BulkOutcome.DONE,
        BulkOutcome.UNCHANGED,
    ]
    (key,) = _keys(store)
    assert key == content_addressed_key(_bytes(store, key), FORMATS["jpeg"])


@pytest.mark.parametrize("folder", ["../up", "a//b", "ü", "x.png"])
def test_an_invalid_folder_is_rejected_before_the_import(importer: Make, folder: str) -> None:
    with pytest.raises(InvalidKey):
        importer(folder=folder)
