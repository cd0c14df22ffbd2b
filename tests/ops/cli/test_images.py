"""`flask images import` and `flask images export`."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.components import components_of
from app.config.settings import Config
from app.core.errors import StoreRefused
from app.core.object_keys import content_addressed_key
from app.core.objects import FORMATS
from app.services.drawing import PromptRequest
from app.stores.base import BaseStore
from tests.pictures import animation, noise, picture
from tests.s3server import CREDENTIALS, S3Server, refusal
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
PNG = FORMATS["png"]


def _run(app: Flask, *arguments: object) -> Result:
    return app.test_cli_runner().invoke(args=["images", *map(str, arguments)])


def _json(app: Flask, *arguments: object) -> tuple[int, dict[str, Any]]:
    result = _run(app, *arguments, "--json")
    loaded: dict[str, Any] = json.loads(result.output)
    return result.exit_code, loaded


def _objects(store: BaseStore) -> dict[str, bytes]:
    found = {}
    for facts in store.list("", limit=1000).objects:
        stored = store.get(facts.key)
        assert stored is not None
        with stored:
            found[facts.key] = stored.body.read()
    return found


def _metadata(store: BaseStore) -> dict[str, dict[str, str]]:
    return {facts.key: dict(store.head(facts.key).metadata) for facts in store.list("", limit=1000).objects}


def _files(root: Path) -> dict[str, bytes]:
    """Return the files in the directory, except for metadata files."""
    files = {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.*") if path.is_file()
    }
    return {name: data for name, data in files.items() if not name.startswith(".metadata/")}


def _write(root: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with four images, two of which are equal, a text file and a hidden file."""
    return _write(
        tmp_path / "from",
        {
            "a.png": noise(1),
            "b/c.png": noise(2),
            "b/copy of a.png": noise(1),
            "b/d.GIF": animation(3),
            "notes.txt": b"hello",
            ".DS_Store": b"",
        },
    )


def test_import_stores_images_by_content_and_skips_other_files(app: Flask, directory: Path) -> None:
    status, printed = _json(app, "import", directory)
    assert "PNG, JPEG, GIF, WebP" in printed["reasons"][1].pop("reason")
    assert (status, printed) == (
        0,
        {
            "files": 5,
            "stored": 3,
            "there_already": 1,
            "skipped": 2,
            "failed": 0,
            "left": 0,
            "reasons": [
                {"name": ".DS_Store", "outcome": "skipped", "reason": "hidden"},
                {"name": "notes.txt", "outcome": "skipped"},
            ],
        },
    )
    assert set(_objects(components_of(app).store)) == {
        content_addressed_key(noise(1), PNG),
        content_addressed_key(noise(2), PNG),
        content_addressed_key(animation(3), FORMATS["gif"]),
    }


def test_a_second_import_stores_nothing(app: Flask, directory: Path) -> None:
    _json(app, "import", directory)
    status, printed = _json(app, "import", directory)
    assert (status, printed["stored"], printed["there_already"]) == (0, 0, 4)


def test_with_strict_files_that_are_not_images_are_a_failure(app: Flask, directory: Path) -> None:
    status, printed = _json(app, "import", directory, "--strict")
    assert (status, printed["skipped"], printed["failed"]) == (1, 1, 1)
    (directory / "notes.txt").unlink()
    assert _run(app, "import", directory, "--strict").exit_code == 0


def test_import_prints_the_counts_and_escapes_names(app: Flask, directory: Path) -> None:
    _write(directory, {"\x1b[2J.png": b"?"})
    result = _run(app, "import", directory)
    assert result.exit_code == 1
    assert (
        "stored               3\nthere already        1\nskipped              2\nfailed               1"
        in result.output
    )
    assert "skipped: .DS_Store: hidden\n" in result.output
    assert re.search(r"skipped: notes.txt: .*PNG, JPEG, GIF, WebP", result.output)
    assert "failed: '\\x1b[2J.png': " in result.output


def test_import_with_keep_names_makes_keys_from_paths(app: Flask, directory: Path) -> None:
    status, printed = _json(app, "import", directory, "--keep-names", "--folder", "users/1")
    assert (status, printed["stored"], printed["failed"]) == (0, 4, 0)
    assert _objects(components_of(app).store) == {
        "users/1/a.png": noise(1),
        "users/1/b/c.png": noise(2),
        "users/1/b/copy-of-a.png": noise(1),
        "users/1/b/d.gif": animation(3),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "no such directory"], "does not exist"),
        (["import", ".", "--folder", "../x"], "Invalid value for --folder: The folder can't be used."),
        (["import", ".", "--concurrency", "0"], "not in the range"),
        (["export"], "Missing argument 'DIR'"),
        (["export", "pyproject.toml"], "is a file"),
    ],
)
def test_wrong_options_are_usage_errors(app: Flask, arguments: list[str], message: str) -> None:
    result = _run(app, *arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.fixture
def full(app: Flask) -> Flask:
    """An application whose store contains images with all kinds of keys."""
    service = components_of(app).images
    service.upload_image(noise(1))
    service.upload_image(picture("JPEG"), folder="users/1")
    service.upload_image(noise(3), name="me.png", folder="users/2")
    service.upload_image(animation(3, "WEBP"), name="top.webp")
    components_of(app).generation.generate(PromptRequest("a sunset", width=64, height=64))
    return app


def test_an_export_can_be_imported_into_a_different_store(
    full: Flask, config: Config, s3_app: Flask, tmp_path: Path
) -> None:
    there = _objects(components_of(full).store)
    assert len(there) == 5
    counts = {"images": 5, "written": 5, "there_already": 0, "failed": 0, "left": 0, "reasons": []}
    assert _json(full, "export", tmp_path / "to") == (0, counts)
    assert _files(tmp_path / "to") == there
    assert _json(full, "export", tmp_path / "to") == (0, counts | {"written": 0, "there_already": 5})
    status, printed = _json(s3_app, "import", tmp_path / "to", "--keep-names")
    assert (status, printed["stored"]) == (0, 5)
    assert _objects(components_of(s3_app).store) == there
    assert _metadata(components_of(s3_app).store) == _metadata(components_of(full).store)
    status, printed = _json(s3_app, "import", tmp_path / "to", "--keep-names")
    assert (status, printed["there_already"]) == (0, 5)
    assert _json(s3_app, "export", tmp_path / "back")[0] == 0
    assert _files(tmp_path / "back") == there


def test_export_with_a_prefix(full: Flask, tmp_path: Path) -> None:
    assert _json(full, "export", tmp_path / "to", "--prefix", "users/2/")[1]["images"] == 1
    assert [str(p.relative_to(tmp_path / "to")) for p in (tmp_path / "to").rglob("*.*")] == ["users/2/me.png"]


def test_export_fails_for_keys_that_are_not_safe_as_paths(
    s3_app: Flask, s3: S3Server, s3_config: Config, tmp_path: Path
) -> None:
    client = s3.make_bucket(s3_config.s3_bucket)
    for key in ("/abs.png", "a.png", "a.png/b.png", "with space/ü.png", "x//y.png", "dir/", "notes.txt"):
        client.put_object(Bucket=s3_config.s3_bucket, Key=key, Body=b"bytes")
    status, printed = _json(s3_app, "export", tmp_path / "to", "--concurrency", "1")
    assert (status, printed["images"], printed["written"], printed["failed"]) == (1, 5, 2, 3)
    assert {r["name"] for r in printed["reasons"]} == {"/abs.png", "x//y.png", "a.png/b.png"}
    written = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert {path for path in written if path.endswith("png")} == {"to/a.png", "to/with space/ü.png"}


def test_an_export_prints_one_line_if_the_listing_fails(s3_app: Flask, s3: S3Server, tmp_path: Path) -> None:
    s3.fault = refusal("403 Forbidden", "AccessDenied", "GET")
    result = _run(s3_app, "export", tmp_path / "to")
    assert result.exit_code == 1
    assert f"Error: {StoreRefused.message}" in result.output
    assert "AccessDenied" in result.output


def test_a_second_import_completes_one_that_s3_refused_midway(
    s3_app: Flask, s3: S3Server, tmp_path: Path
) -> None:
    files = {f"{number}.png": noise(number, (16, 16)) for number in range(12)}
    _write(tmp_path / "from", files)
    s3.fault = _after(5, "PUT", refusal("403 Forbidden", "AccessDenied", "PUT"))
    status, printed = _json(s3_app, "import", tmp_path / "from", "--concurrency", "2")
    stored = printed["stored"]  # fewer than the 5 puts, since some of them only test for conditional puts
    assert 0 < stored <= 5
    assert (status, printed["failed"], printed["left"]) == (1, 12 - stored, 0)
    assert all("PutObject: 403 AccessDenied" in r["reason"] for r in printed["reasons"])
    s3.reset()
    status, printed = _json(s3_app, "import", tmp_path / "from")
    assert (status, printed["stored"], printed["there_already"]) == (0, 12 - stored, stored)
    assert set(_objects(components_of(s3_app).store).values()) == set(files.values())


def test_a_second_export_completes_one_that_s3_refused_midway(
    s3_app: Flask, s3: S3Server, tmp_path: Path
) -> None:
    service = components_of(s3_app).images
    there = {service.upload_image(noise(n, (16, 16)), name=f"{n}.png").key for n in range(8)}
    s3.fault = _after(
        4, "GET", refusal("403 Forbidden", "AccessDenied", "GET")
    )  # the first GET is the listing
    status, printed = _json(s3_app, "export", tmp_path / "to")
    assert (status, printed["written"], printed["failed"]) == (1, 3, 5)
    s3.reset()
    status, printed = _json(s3_app, "export", tmp_path / "to")
    assert (status, printed["written"], printed["there_already"]) == (0, 5, 3)
    assert {path.name for path in (tmp_path / "to").iterdir()} == there


def _after(times: int, method: str, fault: Callable[..., Any]) -> Callable[..., Any]:
    """Return a fault that affects requests with `method`, but not the first `times` of them."""
    left = [times]

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes] | None:
        if environ["REQUEST_METHOD"] == method and left[0]:
            left[0] -= 1
            return None
        answered: Iterable[bytes] | None = fault(environ, start_response)
        return answered

    return answer


def test_ctrl_c_ends_an_import_cleanly_and_a_second_one_completes_it(
    s3_app: Flask, s3_config: Config, s3: S3Server, tmp_path: Path
) -> None:
    files = {f"{number}.png": noise(number, (16, 16)) for number in range(60)}
    _write(tmp_path / "from", files)

    def slow_down(environ: dict[str, Any], start_response: Callable[..., Any]) -> None:
        if environ["REQUEST_METHOD"] == "PUT":
            time.sleep(0.3)

    s3.fault = slow_down
    command = [
        sys.executable,
        "-m",
        "flask",
        "--app",
        "wsgi",
        "images",
        "import",
        str(tmp_path / "from"),
        "--json",
    ]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ
        | CREDENTIALS
        | {
            "STORE": "s3",
            "S3_BUCKET": s3_config.s3_bucket,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": s3.url,
            "CACHE_DIR": str(tmp_path / "other cache"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: sum(method == "PUT" for method, _, _ in list(s3.requests)) >= 6, seconds=60)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    printed = json.loads(output)
    assert (process.returncode, printed["failed"]) == (130, 0)
    assert "Interrupted. Run the same command again to continue." in errors
    assert "Traceback" not in errors
    stored = len(_objects(components_of(s3_app).store))
    assert (printed["stored"], printed["left"]) == (stored, 60 - stored)
    assert 4 <= stored < 60
    s3.reset()
    _, again = _json(s3_app, "import", tmp_path / "from")
    assert (again["there_already"], again["stored"], again["left"]) == (stored, 60 - stored, 0)


def test_an_export_prints_one_line_if_the_directory_can_not_be_created(app: Flask, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    result = _run(app, "export", tmp_path / "file" / "to")
    assert result.exit_code == 1
    assert f"Error: {tmp_path}/file/to: Not a directory" in result.output
    assert "Traceback" not in result.output


def test_upload_limits_apply_to_imports(config: Config, tmp_path: Path) -> None:
    _write(tmp_path / "from", {"a.png": noise(1), "b.gif": animation(2), "c.png": picture()})
    flask = create_app(replace(config, max_upload_bytes=1000, allowed_formats=("png",)))
    status, printed = _json(flask, "import", tmp_path / "from")
    components_of(flask).cache.close()
    assert (status, printed["stored"], printed["failed"]) == (1, 1, 2)


def test_exporting_an_empty_store_says_so(app: Flask, tmp_path: Path) -> None:
    result = _run(app, "export", tmp_path / "to")
    assert result.exit_code == 0
    assert result.output.startswith("The store contains no images to export.\n")
    assert _json(app, "export", tmp_path / "to")[1]["images"] == 0


@pytest.mark.parametrize("command", ["import", "export"])
def test_images_without_a_result_make_the_command_fail(
    app: Flask, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The commands compare the number of results with the number of items."""
    _run(app, "import", directory)
    (directory / "notes.txt").unlink()

    def no_results(*args: Any) -> Iterator[None]:
        yield from ()

    monkeypatch.setattr("app.ops.cli.images.run_concurrently", no_results)
    status, printed = _json(app, command, directory if command == "import" else tmp_path / "to")
    assert (status, printed["left"]) == (1, printed["files" if command == "import" else "images"])
    assert printed["left"] > 0


def test_sign_prints_a_url_that_the_server_accepts(app: Flask, client: FlaskClient) -> None:
    key = components_of(app).images.upload_image(picture(), name="a b.png").key
    result = _run(app, "sign", key, "h9,w8,cover.webp", "--expires", "1h")
    assert result.exit_code == 0, result.output
    (url,) = result.output.splitlines()
    assert re.fullmatch(r"/api/images/a-b\.png/w8,h9,cover\.webp\?exp=\d{10}&sig=[\w-]{43}", url)
    assert 3590 < int(url.partition("exp=")[2][:10]) - time.time() <= 3600
    with client.get(url) as response:
        assert response.status_code == 200
    assert client.get(url.replace("w8", "w7")).status_code == 403


def test_sign_accepts_variants_without_an_extension_and_keys_with_odd_characters(app: Flask) -> None:
    (url,) = _run(app, "sign", "é/a b.png", "w9,h9,cover,fp0.2x0.30").output.splitlines()
    assert re.fullmatch(r"/api/images/%C3%A9/a%20b\.png/w9,h9,cover,fp0\.2x0\.3\?sig=[\w-]{43}", url)


def test_sign_says_that_listed_variants_need_no_signature(app: Flask) -> None:
    result = _run(app, "sign", "a.png", "Thumb.jpeg", "--expires", "1d")
    assert result.stdout == "/api/images/a.png/thumb.jpg\n"
    assert "needs no signature, so its URL does not expire" in result.stderr
    assert _run(app, "sign", "a.png", "thumb.jpg").stderr == ""


def test_sign_prints_the_public_address_of_the_url(config: Config) -> None:
    for changes, prefix in (
        ({"script_name": "/img"}, "/img/api/images"),
        ({"script_name": "/img", "variants_base_url": "https://cdn.example.org/"}, "https://cdn.example.org"),
    ):
        app = create_app(replace(config, **changes))  # type: ignore[arg-type]
        assert _run(app, "sign", "a.png", "thumb").output == f"{prefix}/a.png/thumb\n"
        components_of(app).cache.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.png", "w0"), "unknown or out of range: 'w0'"),
        (("a.png", "w9.bmp"), "unknown or out of range: 'w9.bmp'"),
        (("a.txt", "thumb"), "image extension"),
        (("a.png", "x/thumb"), "unknown or out of range: 'x/thumb'"),
        (("../a.png", "thumb"), "not a valid image key"),
        (("a.png", "w9", "--expires", "soon"), "'soon' is not a duration"),
        (("a.png", "w9", "--expires", "0"), "'0' must be from 1 to"),
        (("a.png", "w9", "--expires", "999999d"), "must be from 1 to"),
    ],
)
def test_sign_refuses_what_can_not_be_requested(app: Flask, arguments: tuple[str, ...], message: str) -> None:
    result = _run(app, "sign", *arguments)
    assert result.exit_code != 0
    assert message in result.stderr
    assert result.stdout == ""
