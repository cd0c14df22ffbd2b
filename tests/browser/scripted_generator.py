"""The image generator of the browser tests. Words in the prompt make it slow or refuse."""

import os
import time
from pathlib import Path

from PIL import Image

from app.core.errors import PromptRefused
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest

STARTED, CONTINUE = "started", "continue"
"""Names of files for the words "wait for test", in the parent of STATE_DIR."""


class ScriptedGenerator(BaseGenerator):
    """Makes images of one colour, derived from the seed.

    "slowly" takes three seconds, "forbidden" is refused. "wait for test" creates the file `STARTED` and waits
    for the file `CONTINUE`.
    """

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Return an image, or raise `PromptRefused`."""
        if "forbidden" in request.prompt:
            raise PromptRefused
        if "slowly" in request.prompt:
            time.sleep(3)
        if "wait for test" in request.prompt:
            _wait_for_test(Path(os.environ["STATE_DIR"]).parent)
        colour = tuple(request.seed.to_bytes(4)[1:])
        return GeneratedImage(
            Image.new("RGB", (request.width, request.height), colour), "one-colour", request.seed
        )


def _wait_for_test(directory: Path) -> None:
    (directory / STARTED).touch()
    deadline = time.monotonic() + 100
    while not (directory / CONTINUE).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
