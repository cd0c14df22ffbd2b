"""No spelling of a key, a name or a folder reads or writes files outside the server's own directories."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import cycle
from pathlib import Path
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.errors import InvalidKey, NotFound
from app.imaging.check import check_image
from app.services import images
from app.services.bulk import BulkReport
from app.services.bulk_import import Importer, find_files
from app.stores.local import LocalStore
from tests.api.traversal import spellings
from tests.conftest import json_of
from tests.pictures import noise, picture

CANARY = noise(77)
PNG = picture()

Tree = dict[str, bytes]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The parent of the server's directories. Each directory above and beside them has a file canary.png."""
    deep = tmp_path / "one" / "two" / "three"
    for directory in (*deep.parents, deep, deep / "store", deep / "cache", deep / "store" / "tmp"):
        if directory.is_relative_to(tmp_path):
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "canary.png").write_bytes(CANARY)
    return deep


@pytest.fixture
def client(config: Config, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    """A client of a server with its directories in `root`. For speed it decodes in this process."""
    monkeypatch.setattr(images, "check_in_sandbox", check_image)
    flask = create_app(_with_directories(root, config))
    yield flask.test_client()
    components_of(flask).cache.close()


def _with_directories(root: Path, config: Config) -> Config:
    return replace(
        config,
        local_store_dir=root / "store",
        cache_dir=root / "cache",
        state_dir=root / "state",
        rate_limit_generate="",
    )


def _outside(tmp_path: Path, root: Path) -> Tree:
    """Return all files outside the server's directories, and the canaries inside that are not objects."""
    own = [root / name for name in ("store", "cache", "state")]
    objects = [root / "store" / "objects", root / "cache" / "objects", root / "cache" / "named"]

    def is_outside(path: Path) -> bool:
        inside = [directory for directory in own if path.is_relative_to(directory)]
        canary = path.name == "canary.png" and not any(
            path.is_relative_to(directory) for directory in objects
        )
        return canary or not inside

    return {
        str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and is_outside(path)
    }


def test_there_are_hundreds_of_spellings(tmp_path: Path) -> None:
    assert len(spellings(str(tmp_path))) > 400


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("encoded", [True, False], ids=["encoded", "raw"])
def test_keys_never_lead_outside(
    client: FlaskClient, tmp_path: Path, root: Path, method: str, encoded: bool
) -> None:
    before = _outside(tmp_path, root)
    for spelling in spellings(str(tmp_path)):
        path = f"/api/images/{quote(spelling, safe='') if encoded else spelling}"
        # As from a server that decodes nothing.
        environ = {} if encoded else {"PATH_INFO": path.encode().decode("latin-1")}
        response = client.open(path if encoded else "/", method=method, environ_overrides=environ)
        assert response.status_code in (400, 404), spelling
        assert CANARY[30:60] not in response.data, spelling
    assert _outside(tmp_path, root) == before


@pytest.mark.parametrize("shape", ["{key}/{spelling}", "{spelling}/w320.webp", "{key}/w64/{spelling}.webp"])
def test_variants_never_lead_outside(client: FlaskClient, tmp_path: Path, root: Path, shape: str) -> None:
    key = json_of(client.post("/api/images", data=PNG, content_type="image/png"))["key"]
    before = _outside(tmp_path, root)
    for spelling, query in zip(
        spellings(str(tmp_path)), cycle(("", "w=64", "sig=" + "A" * 43)), strict=False
    ):
        path = shape.format(key=key, spelling=spelling)
        environ = {"PATH_INFO": f"/api/images/{path}".encode().decode("latin-1"), "QUERY_STRING": query}
        response = client.get("/", environ_overrides=environ)
        assert response.status_code in (308, 400, 403, 404), path
        assert ".." not in response.headers.get("Location", "").split("/"), path
        assert CANARY[30:60] not in response.data, path
    assert _outside(tmp_path, root) == before
    assert not [
        path for name in ("variants", "guarded", "derived") for path in (root / "cache" / name).iterdir()
    ]
    assert not components_of(client.application).cache._health.has_failed


@pytest.mark.parametrize("field", ["name", "folder"])
@pytest.mark.parametrize("way", ["form", "query"])
def test_names_and_folders_never_lead_outside(
    client: FlaskClient, tmp_path: Path, root: Path, field: str, way: str
) -> None:
    before = _outside(tmp_path, root)
    for spelling in spellings(str(tmp_path)):
        if way == "form":
            response = client.post("/api/images", data={"image": (BytesIO(PNG), "a.png"), field: spelling})
        else:
            response = client.post(
                "/api/images", data=PNG, content_type="image/png", query_string={field: spelling}
            )
        assert response.status_code in (200, 201, 400, 409), spelling
        if response.status_code in (200, 201):
            assert (root / "store" / "objects" / json_of(response)["key"]).read_bytes() == PNG
    assert _outside(tmp_path, root) == before


def test_folders_of_generated_images_never_lead_outside(
    client: FlaskClient, tmp_path: Path, root: Path
) -> None:
    before = _outside(tmp_path, root)
    for spelling in spellings(str(tmp_path)):
        prompt = {"prompt": "x", "size": "64x64", "folder": spelling}
        response = client.post("/api/generate-image", json=prompt)
        if response.status_code != 400:
            assert (root / "store" / "objects" / json_of(response)["key"]).is_file(), spelling
    assert _outside(tmp_path, root) == before


def test_prefixes_and_cursors_list_nothing(client: FlaskClient, tmp_path: Path) -> None:
    for spelling in spellings(str(tmp_path)):
        response = client.get("/api/images", query_string={"prefix": spelling, "cursor": spelling})
        assert response.status_code in (200, 400), spelling
        assert not json_of(response).get("images"), spelling


def test_names_of_imported_files_never_lead_outside(config: Config, tmp_path: Path, root: Path) -> None:
    source = root / "source"
    source.mkdir()
    for spelling in spellings(str(tmp_path)):
        name = spelling.replace("/", "\u2215").replace("\0", "")[:80]
        (source / name).write_bytes(PNG)
    components = components_of(create_app(_with_directories(root, config)))
    before = _outside(tmp_path, root)
    importer = Importer(components.images, source, keep_names=True)
    found = find_files(source, BulkReport())
    assert len(found) > 100
    for path in found:
        importer.import_file(path)
    components.cache.close()
    kept = {facts.key for facts in components.store.list(limit=1000).objects}
    assert kept >= {"CON.png", "nul.png", "canary.png..png", "canary.png.png"}
    assert {f"{key}.png" for key in kept} == {
        path.name + ".png" for path in (root / "store" / "objects").iterdir()
    }
    assert _outside(tmp_path, root) == before


@pytest.mark.parametrize("key", ["../canary.png", "objects/../../canary.png", "/etc/canary.png", "a\0.png"])
def test_the_store_refuses_keys_that_lead_outside(config: Config, root: Path, key: str) -> None:
    """It does not rely on the checks of the layers above."""
    store = LocalStore.from_config(_with_directories(root, config))
    for call in (store.get, store.head):
        with pytest.raises(NotFound):
            call(key)
    with pytest.raises(InvalidKey):
        store.put(key, PNG, content_type="image/png")
