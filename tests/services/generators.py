"""A generator for tests: the prompt says what it does, and each call leaves a line in a file."""

import os
import time
from pathlib import Path

from PIL import Image

from app.core.errors import GeneratorUnreachable, PromptRefused
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest


class Obedient(BaseGenerator):
    """`slow 2.5` sleeps so many seconds, `refuse` and `fail` raise; whatever else is drawn at once.

    `until /a/file` draws when there is such a file, for which it looks for two minutes.

    A line with the process's id and the prompt goes into the file that DRAWN names, where it names one.
    """

    def model_name(self) -> str:
        """With characters that have to be escaped in a URL."""
        return "test/obedient-1:0"

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Do as told."""
        if path := os.environ.get("DRAWN"):
            with open(path, "a") as file:
                file.write(f"{os.getpid()} {request.prompt}\n")
        match request.prompt.split():
            case ["slow", seconds, *_]:
                time.sleep(float(seconds))
            case ["until", path, *_]:
                _wait_for(Path(path))
            case ["refuse", *_]:
                raise PromptRefused("No teapots, please.")
            case ["fail", *_]:
                raise GeneratorUnreachable(detail="secret host")
        size = (request.width, request.height)
        colour = f"hsl({request.seed % 360}, 80%, 50%)"
        return GeneratedImage(Image.new("RGB", size, colour), self.model_name(), request.seed)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


NAME = f"{Obedient.__module__}:{Obedient.__name__}"
