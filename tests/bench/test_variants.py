"""The tools of the benchmarks of variants measure correctly."""

import asyncio
import io
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from app.config.settings import Config
from app.core.errors import InvalidVariant, VariantNotPermitted
from app.core.variant_keys import split_variant_path
from app.services.signing import UrlSigner
from app.services.urls import IMAGES_PATH
from app.services.variant_rules import VariantRules
from bench import packages
from bench.origin import COUNTS
from bench.pictures import copies, photo
from bench.servers import Start, serving
from bench.variants.ours import listed_names
from bench.variants.refusals import REQUESTS, made_up_names
from bench.variants.requests import request_all

SIZE = (512, 512)


def test_a_photo_is_always_the_same_and_its_copies_are_not() -> None:
    picture = photo(1, SIZE)
    original = picture.tobytes()
    assert original == photo(1, SIZE).tobytes() != photo(2, SIZE).tobytes()
    found = list(copies(picture, 3))
    assert len(set(found)) == 3
    for data in found:
        with Image.open(io.BytesIO(data)) as copy:
            assert (copy.format, copy.size) == ("JPEG", SIZE)
    assert picture.tobytes() == original


def test_every_path_is_requested_once(tmp_path: Path) -> None:
    objects = tmp_path / "objects"
    objects.mkdir()
    (objects / "a.png").write_bytes(b"a")

    def start(port: int) -> Start:
        return Start((sys.executable, "-m", "bench.origin", str(port), str(objects)))

    paths = ["/bucket/a.png", *(f"/bucket/{number}" for number in range(99))]
    with serving("origin", start, tmp_path / "log", ready=COUNTS) as server:
        assert asyncio.run(request_all(server.port, paths)) == {200: 1, 404: 99}


def test_made_up_names_differ_and_are_refused() -> None:
    config = Config()
    signer = UrlSigner(["sixteen letters!"])
    rules = VariantRules(config.variants, config.variant_widths, dict(config.variant_presets), signer)
    names = made_up_names(random.Random(1), REQUESTS)
    assert len(set(names)) == REQUESTS
    for name in names[:200]:
        path = split_variant_path(f"{IMAGES_PATH}a.jpg/{name.partition('?')[0]}")
        assert path is not None
        with pytest.raises((InvalidVariant, VariantNotPermitted)):
            rules.check(rules.canonical(path)[0], {})


def test_the_stranger_knows_all_listed_variants() -> None:
    names = listed_names(Config())
    assert len(set(names)) == len(names) == 178
    assert {"w640.avif", "w640,still.png", "thumb.gif"} <= set(names)


def test_a_package_is_installed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Sequence[str]] = []
    monkeypatch.setenv("BENCH_DIR", str(tmp_path))
    monkeypatch.setattr("bench.packages._run", lambda name, command: commands.append(command))
    python = packages.python_with("thumbor==7.8.0")
    assert python == tmp_path / "thumbor-7.8.0" / "bin" / "python"
    assert packages.python_with("thumbor==7.8.0") == python
    assert [command[0] for command in commands] == [sys.executable, str(python)]


def test_an_installation_that_fails_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!{shutil.which('sh')}\necho tried >>{tmp_path}/tries\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    shutil.copy(npm, npm.with_name("node"))
    monkeypatch.setenv("BENCH_DIR", str(tmp_path / "packages"))
    monkeypatch.setenv("PATH", str(npm.parent))
    for _ in range(2):
        with pytest.raises(packages.NotInstalledError, match="ipx can't be installed: no network"):
            packages.npm_package("ipx", "3.1.1")
    assert (tmp_path / "tries").read_text() == "tried\ntried\n"
