"""Count how many modules of the application a request passes through, and how often it jumps between them.

Run `python -m bench.crossings`; with `-v`, it also lists the modules. It sends an upload, a miss, a hit and
a prompt to an application whose store is an S3 server on this machine, and counts calls in all threads with
`sys.setprofile`. A jump is a call from one module of `app` to a different one, directly or through
libraries. The first request of each kind is not counted, because it creates clients and other objects for
later requests.
"""

import io
import json
import logging
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

from flask.testing import FlaskClient
from PIL import Image

from app import create_app
from app.config.settings import Config
from tests.s3server import CREDENTIALS, S3Server

ROOT = str(Path(__file__).resolve().parent.parent)
BUCKET = "crossings"


class Crossings:
    """A profile function that counts the calls of each module, and the jumps between modules."""

    def __init__(self) -> None:
        self.modules: Counter[str] = Counter()
        self.jumps = 0
        self._modules_of_code: dict[Any, str] = {}

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Count a call."""
        if event != "call" or not (callee := self._module_of(frame)):
            return
        self.modules[callee] += 1
        above = frame.f_back
        while above is not None and not (caller := self._module_of(above)):
            above = above.f_back
        if above is None or caller != callee:
            self.jumps += 1

    def _module_of(self, frame: FrameType) -> str:
        code = frame.f_code
        module = self._modules_of_code.get(code)
        if module is None:
            name = code.co_filename
            module = name.removeprefix(f"{ROOT}/") if name.startswith(f"{ROOT}/app/") else ""
            self._modules_of_code[code] = module
        return module


class Profile:
    """The profile function of all threads. While `count` runs, it passes each call on to a `Crossings`."""

    def __init__(self) -> None:
        self._crossings: Crossings | None = None

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Pass the event on if calls are being counted."""
        if self._crossings is not None:
            self._crossings(frame, event, argument)

    def count(self, call: Callable[[], object]) -> Crossings:
        """Run `call`, and return the counts of all threads."""
        self._crossings = crossings = Crossings()
        try:
            call()
            time.sleep(0.2)  # wait for work that continues in other threads
        finally:
            self._crossings = None
        return crossings


def picture(colour: int) -> bytes:
    """Return a small PNG, different for each `colour`."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), (colour, 90, 160)).save(file, "PNG")
    return file.getvalue()


def upload(client: FlaskClient, colour: int) -> str:
    """Upload an image and return its path on this server."""
    answer = client.post("/api/images", data=picture(colour), content_type="image/png")
    assert answer.status_code == 201, answer.text
    return f"/api/images/{json.loads(answer.text)['key']}"


def get(client: FlaskClient, path: str) -> None:
    """Fetch an image to its end."""
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    answer.close()


def generate(client: FlaskClient, prompt: str) -> None:
    """Generate an image."""
    answer = client.post("/api/generate-image", json={"prompt": prompt, "size": "64x64"})
    assert answer.status_code == 200, answer.text


def main() -> None:
    """Print a line for each kind of request and, with `-v`, the modules."""
    logging.disable()
    profile = Profile()
    threading.setprofile(profile)
    sys.setprofile(profile)
    server = S3Server().start()
    server.make_bucket(BUCKET).close()
    with tempfile.TemporaryDirectory() as directory, mock.patch.dict("os.environ", CREDENTIALS):
        settings = {"S3_BUCKET": BUCKET, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_S3": server.url}
        directories = {name: f"{directory}/{name}" for name in ("CACHE_DIR", "STATE_DIR", "LOCAL_STORE_DIR")}
        flask = create_app(Config.from_env({**settings, **directories, "S3_ACL": "none"}))
        client = flask.test_client()
        paths = [upload(client, colour) for colour in range(3)]
        get(client, paths[0])
        generate(client, "first")
        counted = {
            "upload": profile.count(lambda: upload(client, 9)),
            "hit": profile.count(lambda: get(client, paths[0])),
        }
        for path in paths:  # remove the images from the cache, so that only the store has them
            Path(f"{directory}/CACHE_DIR/objects{path.removeprefix('/api/images')}").unlink()
        get(client, paths[1])
        counted["miss"] = profile.count(lambda: get(client, paths[2]))
        counted["prompt"] = profile.count(lambda: generate(client, "a lighthouse at night"))
        for name, crossings in counted.items():
            sys.stdout.write(f"{name:7} {len(crossings.modules):3} modules, {crossings.jumps:3} jumps\n")
            if "-v" in sys.argv:
                lines = (f"  {calls:4} {module}\n" for module, calls in crossings.modules.most_common())
                sys.stdout.writelines(lines)
    server.stop()


if __name__ == "__main__":
    main()
