"""A generator for the browser's tests: quick, unless the prompt says what shall go wrong."""

import os
import time
from pathlib import Path

from PIL import Image

from app.core.errors import PromptRefused
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest

BEGUN, GO_ON = "begun", "go-on"


class Drawing(BaseGenerator):
    """One colour; "slowly" takes three seconds, "forbidden" is refused.

    "until told" makes the file `BEGUN` beside the server's directories, and is drawn once `GO_ON` is there.
    """

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """A picture whose colour follows from the seed."""
        if "forbidden" in request.prompt:
            raise PromptRefused
        if "slowly" in request.prompt:
            time.sleep(3)
        if "until told" in request.prompt:
            _wait_to_be_told(Path(os.environ["STATE_DIR"]).parent)
        colour = tuple(request.seed.to_bytes(4)[1:])
        return GeneratedImage(
            Image.new("RGB", (request.width, request.height), colour), "one-colour", request.seed
        )


def _wait_to_be_told(directory: Path) -> None:
    (directory / BEGUN).touch()
    deadline = time.monotonic() + 100
    while not (directory / GO_ON).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
