"""Variants in the store: two machines that share a bucket, versions, deletion, and a store that fails."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from app.cache.lookup import CacheStatus
from app.components import Components, build_components, components_of
from app.config.settings import Config
from app.core.errors import NotFound
from app.core.threads import Bulkhead
from app.core.variant_keys import VariantPath, stored_key
from app.services.stored_variants import MAX_VARIANT_BYTES, StoredVariants
from app.stores.s3.store import S3Store
from tests.pictures import noise, picture
from tests.s3server import S3Server, error, refusal

PNG = noise(1)


class Machine:
    """A server with a cache of its own. It counts the variants that it makes."""

    def __init__(self, config: Config) -> None:
        self.parts: Components = build_components(config)
        self.made: list[str] = []
        self.parts.variants._on_made = lambda name, seconds, size: self.made.append(name)

    def fetch(self, key: str, name: str = "w32.webp", *, is_listed: bool = True) -> tuple[CacheStatus, bytes]:
        """Return the status and the bytes of a variant, once the background tasks are done."""
        name, _, extension = name.rpartition(".")
        path, spec = self.parts.variant_rules.canonical(VariantPath(key, name, extension))
        cached = self.parts.variants.fetch(path, spec, is_listed=is_listed)
        try:
            data = cached.body.read()
        finally:
            cached.body.close()
        self.settle()
        return cached.status, data

    def settle(self) -> None:
        """Wait for the background tasks."""
        assert self.parts.images.stored_variants.wait(30)

    def keys(self) -> list[str]:
        """Return the keys of all objects in the bucket."""
        return [facts.key for facts in self.parts.store.list(limit=1000).objects]


MakeMachine = Callable[..., Machine]


@pytest.fixture
def make_machine(s3_config: Config, tmp_path: Path) -> Iterator[MakeMachine]:
    """Return a function that creates machines which share a bucket."""
    made: list[Machine] = []

    def make(**settings: Any) -> Machine:
        directory = tmp_path / f"machine-{len(made)}"
        settings = {"variants_in_store": True, "cache_dir": directory / "cache", **settings}
        made.append(Machine(replace(s3_config, state_dir=directory / "state", **settings)))
        return made[-1]

    yield make
    for machine in made:
        machine.settle()
        machine.parts.cache.close()


@pytest.fixture
def one(make_machine: MakeMachine) -> Machine:
    """A machine."""
    return make_machine()


@pytest.fixture
def other(make_machine: MakeMachine) -> Machine:
    """Another machine."""
    return make_machine()


def _upload(machine: Machine, data: bytes = PNG, name: str | None = None) -> str:
    key = machine.parts.images.upload_image(data, name, "users" if name else None).key
    machine.settle()
    return key


def _put(machine: Machine, key: str, data: bytes, **changes: str) -> None:
    """Replace the bytes or the metadata of a stored variant."""
    facts = machine.parts.store.head(key)
    content_type = changes.pop("content_type", facts.content_type)
    metadata = {**facts.metadata, **{name.replace("_", "-"): value for name, value in changes.items()}}
    machine.parts.store.put(key, data, content_type=content_type, metadata=metadata)


@pytest.mark.parametrize("name", [None, "me.png"])
@pytest.mark.parametrize(("variant", "is_listed"), [("w32.webp", True), ("w10,h10,cover.avif", False)])
def test_the_second_machine_makes_nothing_and_does_not_fetch_the_image(
    one: Machine, other: Machine, s3: S3Server, name: str | None, variant: str, is_listed: bool
) -> None:
    key = _upload(one, name=name)
    first, data = one.fetch(key, variant, is_listed=is_listed)
    s3.requests.clear()
    assert other.fetch(key, variant, is_listed=is_listed) == (CacheStatus.MISS, data)
    assert (first, len(one.made), other.made) == (CacheStatus.MISS, 1, [])
    found = [(method, path.partition("/variants/")[1]) for method, path, _ in s3.requests]
    assert found == [("GET", "/variants/"), ("HEAD", "")]
    s3.requests.clear()
    assert other.fetch(key, variant, is_listed=is_listed) == (CacheStatus.HIT, data)
    assert s3.requests == []


def test_both_machines_send_the_same_validators(one: Machine, other: Machine) -> None:
    for key in (_upload(one), _upload(one, name="me.png")):
        path, spec = (
            VariantPath(key, "w32", "webp"),
            one.parts.variant_rules.canonical(VariantPath(key, "w32", "webp"))[1],
        )
        facts = []
        for machine in (one, other):
            cached = machine.parts.variants.fetch(path, spec, is_listed=True)
            cached.body.close()
            machine.settle()
            facts.append(
                (cached.facts.etag.split("-")[-1], cached.facts.is_immutable, cached.facts.content_type)
            )
        assert facts[0] == facts[1]
    assert (len(one.made), other.made) == (2, [])


def test_a_stored_variant_can_be_served_by_the_bucket_itself(one: Machine, s3: S3Server, bucket: str) -> None:
    for key, expected in ((_upload(one), "immutable"), (_upload(one, name="me.png"), "public, no-cache")):
        one.fetch(key)
        client = s3.client()
        head = client.head_object(Bucket=bucket, Key=f"variants/{key}/w32.webp")
        client.close()
        assert (head["ContentType"], expected in head["CacheControl"]) == ("image/webp", True)
        assert head["Metadata"]["variant-recipe"] == "1 w32 25000000"
    puts = [headers for method, path, headers in s3.requests if method == "PUT" and "/variants/" in path]
    assert [headers["x-amz-acl"] for headers in puts] == ["public-read"] * 2


def test_an_overwritten_image_has_no_variants_of_its_old_version(one: Machine, other: Machine) -> None:
    key = _upload(one, name="me.png")
    _, old = one.fetch(key)
    _upload(one, noise(2), name="me.png")
    assert one.keys() == [key]
    _, new = one.fetch(key)
    assert new != old
    assert other.fetch(key)[1] == new
    assert (len(one.made), len(other.made)) == (2, 0)


def test_a_variant_of_an_old_version_is_replaced(
    one: Machine, other: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StoredVariants, "delete_all", lambda *args: None)
    key = _upload(one, name="me.png")
    _, old = one.fetch(key)
    _upload(one, noise(2), name="me.png")
    assert len(one.keys()) == 2
    _, new = other.fetch(key)
    assert new != old
    assert one.fetch(key)[1] == new
    assert (len(one.made), len(other.made)) == (1, 1)


def test_a_cached_variant_of_an_overwritten_image_is_replaced_by_the_stored_one(
    one: Machine, make_machine: MakeMachine
) -> None:
    key = _upload(one, name="me.png")
    other = make_machine(cache_ttl=0)
    other.fetch(key)
    _upload(one, noise(2), name="me.png")
    _, new = one.fetch(key)
    assert other.fetch(key)[1] == new
    assert (len(one.made), other.made) == (1, ["webp"])


@pytest.mark.parametrize("name", [None, "me.png"])
def test_variants_go_with_their_image(one: Machine, other: Machine, name: str | None) -> None:
    key, neighbour = _upload(one, name=name), _upload(one, noise(3), name="me.png.png")
    for variant in ("w32.webp", "w48.avif", "w64.png"):
        one.fetch(key, variant)
    one.fetch(neighbour)
    one.parts.images.delete(key)
    assert one.keys() == [neighbour, f"variants/{neighbour}/w32.webp"]
    for machine in (one, other):
        with pytest.raises(NotFound):
            machine.fetch(key)


def test_variants_go_with_their_image_when_the_setting_is_off_again(
    one: Machine, make_machine: MakeMachine
) -> None:
    key = _upload(one)
    one.fetch(key)
    later = make_machine(variants_in_store=False)
    assert [image.key for image in later.parts.images.list_all()] == [key]
    assert later.fetch(key)[0] is CacheStatus.MISS
    assert later.made == ["webp"]
    later.parts.images.delete(key)
    assert later.keys() == []


def test_a_variant_that_could_not_be_deleted_is_not_served_and_a_second_delete_removes_it(
    one: Machine, other: Machine, s3: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    key = _upload(one)
    one.fetch(key)
    s3.fault = error(
        "403 Forbidden",
        "AccessDenied",
        lambda environ: environ["REQUEST_METHOD"] == "DELETE" and "/variants/" in environ["PATH_INFO"],
    )
    one.parts.images.delete(key)
    assert "1 stored variants" in caplog.text
    assert len(one.keys()) == 1
    for machine in (one, other):
        with pytest.raises(NotFound):
            machine.fetch(key)
    s3.fault = None
    with pytest.raises(NotFound):
        one.parts.images.delete(key)
    assert one.keys() == []


@pytest.mark.parametrize("name", [None, "me.png"])
def test_a_variant_that_is_put_after_its_image_was_deleted_does_not_stay(
    one: Machine, other: Machine, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = _upload(one, name=name)
    may_put = threading.Event()
    put = one.parts.store.put

    def put_late(key: str, *args: Any, **options: Any) -> Any:
        may_put.wait(30)
        return put(key, *args, **options)

    monkeypatch.setattr(one.parts.store, "put", put_late)
    path, spec = one.parts.variant_rules.canonical(VariantPath(key, "w32", "webp"))
    one.parts.variants.fetch(path, spec, is_listed=True).body.close()  # does not wait for the put
    other.parts.images.delete(key)
    may_put.set()
    one.settle()
    assert one.keys() == []


def test_stored_variants_are_not_images(one: Machine, s3_config: Config) -> None:
    key = _upload(one)
    one.fetch(key)
    variant = f"variants/{key}/w32.webp"
    images = one.parts.images
    assert one.keys() == [key, variant]
    assert [image.key for image in images.list()[0]] == [key]
    assert images.list("variants/") == ([], None)
    assert not images.is_foreign_object(variant)
    for attempt in (images.fetch, images.delete, lambda key: one.fetch(key, "w16.webp")):
        with pytest.raises(NotFound):
            attempt(variant)
    assert one.keys() == [key, variant]
    client = create_app(replace(s3_config, variants_in_store=True)).test_client()
    for path in (variant, f"{variant}/w16.webp", f"{variant}/info"):
        assert client.get(f"/api/images/{path}").status_code == 404
    assert client.delete(f"/api/images/{variant}").status_code == 404
    components_of(client.application).cache.close()


def test_a_folder_named_variants_holds_images(one: Machine) -> None:
    key = one.parts.images.upload_image(PNG, folder="variants").key
    assert [image.key for image in one.parts.images.list_all()] == [key]
    one.fetch(key)
    assert one.keys() == [key, f"variants/{key}/w32.webp"]


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (b"", {}),
        (PNG, {}),
        (None, {"variant_of": "0123456789abcdef"}),
        (None, {"variant_of": ""}),
        (None, {"variant_recipe": "1 w48 25000000"}),
        (None, {"variant_recipe": "0 w32 25000000"}),
        (None, {"variant_sha256": "0" * 64}),
        (None, {"content_type": "text/html"}),
        (picture("PNG"), {"variant_sha256": "of the data"}),
        (bytes(MAX_VARIANT_BYTES + 1), {"variant_sha256": "of the data"}),
    ],
)
def test_an_invalid_object_is_replaced(
    one: Machine, other: Machine, data: bytes | None, changes: dict[str, str]
) -> None:
    key = _upload(one)
    _, made = one.fetch(key)
    variant = f"variants/{key}/w32.webp"
    written = made if data is None else data
    if "variant_sha256" in changes and data is not None:
        changes = {"variant_sha256": hashlib.sha256(data).hexdigest()}
    _put(one, variant, written, **changes)
    assert other.fetch(key)[1] == made
    assert other.made == ["webp"]
    stored = one.parts.store.get(variant)
    assert stored is not None
    with stored:
        assert stored.body.read() == made


def test_a_changed_preset_is_made_again(one: Machine, make_machine: MakeMachine) -> None:
    key = _upload(one)
    _, old = one.fetch(key, "thumb.webp")
    presets = (("thumb", one.parts.variant_rules.canonical(VariantPath(key, "w16", "webp"))[1]),)
    changed = make_machine(variant_presets=presets)
    assert changed.fetch(key, "thumb.webp")[1] != old
    assert changed.made == ["webp"]


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_store_that_fails_costs_only_speed(
    one: Machine, s3: S3Server, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    key = _upload(one)
    s3.fault = error(
        "403 Forbidden",
        "AccessDenied",
        lambda environ: environ["REQUEST_METHOD"] == method and "/variants/" in environ["PATH_INFO"],
    )
    s3.requests.clear()
    for width in (16, 32, 48):
        assert one.fetch(key, f"w{width}.webp")[0] is CacheStatus.MISS
    assert len(one.made) == 3
    attempts = {path for m, path, _ in s3.requests if "/variants/" in path and m == method}
    assert len(attempts) == 1  # then it pauses
    assert caplog.text.count("variants for 30 s" if method == "PUT" else "the store for 30 s") == 1
    others = {path for m, path, _ in s3.requests if "/variants/" in path and "/w" in path and m != method}
    assert len(others) == 3  # a machine may be allowed to read or to write only


def test_the_store_is_used_again_after_the_pause(s3_config: Config, s3: S3Server) -> None:
    now = [0.0]
    store = S3Store.from_config(s3_config)
    stored = StoredVariants(store, Bulkhead(), enabled=True, clock=lambda: now[0])
    path = VariantPath("users/a.png", "w32", "webp")
    s3.fault = refusal("403 Forbidden", "AccessDenied", "GET", times=1)
    for seconds, requests in ((0.0, 1), (29.9, 1), (30.1, 2)):
        now[0] = seconds
        assert stored.find(path, "w32") is None
        assert s3.count("GET", stored_key(path)) == requests


def test_the_memory_of_waiting_variants_is_bounded(
    one: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = _upload(one)
    source = one.parts.store.head(key)
    started, may_end = threading.Semaphore(0), threading.Event()
    puts = []

    def put(key: str, data: bytes, **options: object) -> None:
        puts.append(len(data))
        started.release()
        may_end.wait(30)

    monkeypatch.setattr(one.parts.store, "put", put)
    data = bytes(MAX_VARIANT_BYTES // 2)
    for width in range(1, 9):
        path = VariantPath(key, f"w{width}", "webp")
        one.parts.images.stored_variants.keep(path, "", source, data, is_first_frame=False)
    one.parts.images.stored_variants.keep(path, "", source, bytes(2 * len(data) + 1), is_first_frame=False)
    for _ in range(2):
        assert started.acquire(timeout=30)
    assert len(puts) == 2
    may_end.set()
    one.settle()
    assert puts == [len(data)] * 4


def test_an_image_without_a_name_for_its_variants_has_none_in_the_store(one: Machine, s3: S3Server) -> None:
    key = "x" * (1024 - len("/w32.webp") - len(".png")) + ".png"
    one.parts.store.put(key, PNG, content_type="image/png")
    one.fetch(key)
    assert one.keys() == [key]


def test_the_first_frame_of_an_animation_is_known_as_such_on_the_other_machine(
    one: Machine, other: Machine
) -> None:
    key = _upload(one)
    path, spec = one.parts.variant_rules.canonical(VariantPath(key, "w32", "webp"))
    source = replace(one.parts.store.head(key), is_immutable=True)
    recipe = f"{spec} {one.parts.config.variant_max_pixels}"
    one.parts.images.stored_variants.keep(path, recipe, source, picture("WEBP"), is_first_frame=True)
    one.settle()
    cached = other.parts.variants.fetch(path, spec, is_listed=True)
    cached.body.close()
    assert cached.facts.key == f"/guarded/{key}/w32+first.webp"
    assert other.made == []
