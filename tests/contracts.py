"""Test suites that every store and every generator must pass. To run them on your own store:

    from tests.contracts import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)

Each test needs an empty store. In `tests`, failures show the values that differ. Elsewhere, this requires
`pytest.register_assert_rewrite("tests.contracts")` in a `conftest.py`, before anything imports this module.
"""

import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from PIL import Image

from app.core.errors import NotFound
from app.core.objects import FORMATS
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest
from app.stores.base import BaseStore

LONG_KEY = "/".join(["d" * 190] * 5) + "/x.png"


def _read(store: BaseStore, key: str) -> bytes:
    stored = store.get(key)
    assert stored is not None
    with stored:
        return stored.body.read()


def _put(store: BaseStore, key: str, data: bytes = b"bytes", *, overwrite: bool = True) -> bool:
    return store.put(key, data, content_type="image/png", overwrite=overwrite).created


def _facts(data: bytes) -> tuple[int, str, bytes]:
    """Return the length, the digest and the first bytes, since a failure would show only a part of `data`."""
    return len(data), sha256(data).hexdigest(), data[:20]


class StoreContract:
    """The suite for stores. Subclass it and define a fixture `store` that returns an empty store."""

    @pytest.fixture
    def store(self) -> BaseStore:
        """Return the store under test, empty."""
        raise NotImplementedError("Define a fixture `store` that returns your store, empty.")

    @pytest.fixture(autouse=True)
    def _starts_empty(self, store: BaseStore) -> None:
        """Fail at once if the store is not empty. Otherwise, tests would fail because of leftover objects."""
        found: list[str] = []
        with suppress(Exception):  # the tests of `list` report this error
            found = [facts.key for facts in store.list(limit=5).objects]
        if found:
            pytest.fail(
                f"Each test needs an empty store, and this one holds {found}. Let the fixture `store` create "
                "a new one for each test (another directory, bucket or prefix), or empty it.",
                pytrace=False,
            )

    @pytest.mark.parametrize("size", [1, 1000, 5 * 1024 * 1024])
    def test_get_returns_what_put_stored(self, store: BaseStore, size: int) -> None:
        data = bytes(i % 251 for i in range(1000)) * (size // 1000 + 1)
        put = store.put("a/b.webp", data[:size], content_type="image/webp", cache_control="public, no-cache")
        stored = store.get("a/b.webp")
        assert stored is not None
        with stored:
            assert _facts(stored.body.read()) == _facts(data[:size])
        assert put.created
        assert stored.facts == store.head("a/b.webp")
        assert (stored.facts.key, stored.facts.size) == ("a/b.webp", size)
        assert stored.facts.content_type == "image/webp"
        assert (put.facts.etag, put.facts.size) == (stored.facts.etag, size)

    @pytest.mark.parametrize(
        "metadata",
        [{}, {"prompt": "a%20cat; 100% \"red\", 'big'"}, {"x-1-a": "1", "long": "v" * 1500}],
    )
    def test_metadata_stays_with_its_version(self, store: BaseStore, metadata: dict[str, str]) -> None:
        store.put("a.png", b"old", content_type="image/png", metadata={"of": "the old version"})
        put = store.put("a.png", b"new", content_type="image/png", metadata=metadata)
        kept = store.put(
            "a.png", b"x", content_type="image/png", metadata={"of": "no version"}, overwrite=False
        )
        stored = store.get("a.png")
        assert stored is not None
        stored.body.close()
        returned = {
            "put": put.facts,
            "put without overwrite": kept.facts,
            "head": store.head("a.png"),
            "get": stored.facts,
        }
        found = {call: dict(facts.metadata) for call, facts in returned.items()}
        assert found == dict.fromkeys(returned, metadata)
        assert len(set(returned.values())) <= len(returned), "facts must be hashable, with their metadata"

    def test_a_body_can_be_read_in_chunks(self, store: BaseStore) -> None:
        _put(store, "a.png", b"0123456789")
        stored = store.get("a.png")
        assert stored is not None
        with stored:
            chunks = [stored.body.read(4) for _ in range(4)]
        assert chunks == [b"0123", b"4567", b"89", b""]

    def test_facts_fit_http_headers(self, store: BaseStore) -> None:
        _put(store, "a.png")
        facts = store.head("a.png")
        assert facts.etag.startswith('"')
        assert facts.etag.endswith('"')
        assert len(facts.etag) > 2
        assert abs(datetime.now(UTC) - facts.last_modified) < timedelta(seconds=60)

    def test_a_missing_object_raises_not_found(self, store: BaseStore) -> None:
        with pytest.raises(NotFound):
            store.get("no/such.png")
        with pytest.raises(NotFound):
            store.head("no/such.png")
        assert not store.exists("no/such.png")

    @pytest.mark.parametrize("key", ["a/b", "a", "a/b/c.png/d.png"])
    def test_a_part_of_a_key_is_not_found(self, store: BaseStore, key: str) -> None:
        _put(store, "a/b/c.png")
        with pytest.raises(NotFound):
            store.get(key)

    def test_put_replaces_an_object(self, store: BaseStore) -> None:
        _put(store, "a.png", b"old")
        before = store.head("a.png").etag
        assert _put(store, "a.png", b"new")
        assert _read(store, "a.png") == b"new"
        assert store.head("a.png").etag != before

    def test_put_without_overwrite_keeps_the_object(self, store: BaseStore) -> None:
        assert _put(store, "a.png", b"first", overwrite=False)
        assert not _put(store, "a.png", b"second", overwrite=False)
        assert _read(store, "a.png") == b"first"

    def test_one_of_many_puts_creates_the_object(self, store: BaseStore) -> None:
        with ThreadPoolExecutor(8) as pool:
            created = list(pool.map(lambda _: _put(store, "x/race.png", b"same", overwrite=False), range(16)))
        assert Counter(created) == {True: 1, False: 15}
        assert _read(store, "x/race.png") == b"same"

    def test_a_read_returns_one_version_during_writes(self, store: BaseStore) -> None:
        versions = [bytes([65 + i]) * (10_000 + i) for i in range(8)]
        _put(store, "a.png", versions[0])

        def read(_: int) -> bytes:
            stored = store.get("a.png")
            assert stored is not None
            with stored:
                data = stored.body.read()
            assert len(data) == stored.facts.size
            return data

        with ThreadPoolExecutor(8) as pool:
            writes = [pool.submit(_put, store, "a.png", data) for data in versions]
            seen = list(pool.map(read, range(24)))
        assert [write.result() for write in writes] == [True] * len(versions)
        assert {_facts(data) for data in seen} <= {_facts(data) for data in versions}

    def test_put_returns_the_facts_of_its_own_bytes(self, store: BaseStore) -> None:
        versions = [bytes([65 + i]) * (100 + i) for i in range(8)]

        def put(data: bytes) -> int:
            return store.put("a.png", data, content_type="image/png").facts.size

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(put, versions * 5)) == [len(data) for data in versions * 5]

    def test_get_returns_none_if_the_etag_matches(self, store: BaseStore) -> None:
        _put(store, "a.png", b"old")
        etag = store.head("a.png").etag
        assert store.get("a.png", if_none_match=etag) is None
        _put(store, "a.png", b"newer")
        changed = store.get("a.png", if_none_match=etag)
        assert changed is not None
        with changed:
            assert changed.body.read() == b"newer"

    def test_delete_removes_the_object_and_can_be_repeated(self, store: BaseStore) -> None:
        _put(store, "a/b.png")
        store.delete("a/b.png")
        assert not store.exists("a/b.png")
        store.delete("a/b.png")
        assert _put(store, "a/b.png", overwrite=False)

    def test_delete_keeps_other_objects(self, store: BaseStore) -> None:
        for key in ("a/b.png", "a/b.png2.png", "a/c/d.png"):
            _put(store, key)
        store.delete("a/b.png")
        assert [facts.key for facts in store.list().objects] == ["a/b.png2.png", "a/c/d.png"]

    @pytest.mark.parametrize("key", ["a_b-c.d/e.f-g_h.png", LONG_KEY, "0/1.avif"])
    def test_keys_can_have_any_valid_shape(self, store: BaseStore, key: str) -> None:
        _put(store, key)
        assert _read(store, key) == b"bytes"
        assert [facts.key for facts in store.list(key[:3]).objects] == [key]

    def test_list_is_ordered_by_key(self, store: BaseStore) -> None:
        keys = ["a-b/c.png", "a.png", "a/b.png", "a/c/d.png", "a0.png", "b/a.png"]
        for key in reversed(keys):
            _put(store, key)
        page = store.list()
        assert [facts.key for facts in page.objects] == keys
        assert page.cursor is None
        assert {facts.key: facts.size for facts in page.objects} == dict.fromkeys(keys, 5)

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [
            ("a/", ["a/b.png", "a/c.png"]),
            ("a", ["a/b.png", "a/c.png", "ab.png"]),
            ("a/c", ["a/c.png"]),
            ("z", []),
        ],
    )
    def test_list_returns_the_keys_with_the_prefix(
        self, store: BaseStore, prefix: str, expected: list[str]
    ) -> None:
        for key in ("a/b.png", "a/c.png", "ab.png", "b.png"):
            _put(store, key)
        assert [facts.key for facts in store.list(prefix).objects] == expected

    @pytest.mark.parametrize("limit", [1, 2, 5, 6])
    def test_list_returns_pages(self, store: BaseStore, limit: int) -> None:
        keys = [f"p/{i}.png" for i in range(5)]
        for key in keys:
            _put(store, key)
        listed: list[str] = []
        cursor = None
        for _ in range(6):
            page = store.list("p/", limit=limit, cursor=cursor)
            assert len(page.objects) <= limit
            listed += [facts.key for facts in page.objects]
            cursor = page.cursor
            if cursor is None:
                break
        assert listed == keys
        assert cursor is None

    def test_urls_are_absolute_or_none(self, store: BaseStore) -> None:
        url = store.object_url("a/b.png")
        assert url is None or url.startswith(("http://", "https://"))
        assert not store.is_public("a/b.png") or url is not None
        signed = store.signed_url("a/b.png")
        assert signed is None or signed.startswith(("http://", "https://"))


class GeneratorContract:
    """The suite for generators. Subclass it and define a fixture `generator` that returns your generator."""

    @pytest.fixture
    def generator(self) -> BaseGenerator:
        """Return the generator under test."""
        raise NotImplementedError("Define a fixture `generator` that returns your generator.")

    @pytest.mark.parametrize("prompt", ["A beautiful sunset over mountains", "猫", "🌊" * 20, "x" * 10_000])
    def test_draws_any_prompt(self, generator: BaseGenerator, prompt: str) -> None:
        drawn = generator.generate(GenerationRequest(prompt, 128, 96, seed=1))
        assert drawn.model
        assert min(_size_of(drawn)) > 0

    @pytest.mark.parametrize("size", [(64, 64), (64, 2048), (2048, 64), (1001, 999)])
    def test_draws_any_size(self, generator: BaseGenerator, size: tuple[int, int]) -> None:
        assert min(_size_of(generator.generate(GenerationRequest("a red boat", *size, seed=1)))) > 0

    @pytest.mark.parametrize("image_format", FORMATS)
    def test_accepts_any_format(self, generator: BaseGenerator, image_format: str) -> None:
        request = GenerationRequest("a red boat", 96, 64, seed=1, image_format=image_format)
        assert min(_size_of(generator.generate(request))) > 0

    @pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
    def test_returns_a_seed_that_can_be_reused(self, generator: BaseGenerator, seed: int) -> None:
        drawn = generator.generate(GenerationRequest("a red boat", 96, 64, seed, negative_prompt="people"))
        assert drawn.seed is None or 0 <= drawn.seed < 2**32

    def test_threads_can_share_it(self, generator: BaseGenerator) -> None:
        requests = [GenerationRequest("a red boat", 96, 96, seed=i) for i in range(6)]
        with ThreadPoolExecutor(6) as pool:
            assert len(list(pool.map(generator.generate, requests))) == 6


def _size_of(drawn: GeneratedImage) -> tuple[int, int]:
    if isinstance(drawn.image, Image.Image):
        return drawn.image.size
    with Image.open(io.BytesIO(drawn.image)) as image:
        return image.size
