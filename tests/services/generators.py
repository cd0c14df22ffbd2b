"""A generator for tests, which follows instructions in the prompt and records its calls in a file."""

import os
import time
from pathlib import Path

from PIL import Image

from app.core.errors import GeneratorUnreachable, PromptRefused
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest


class ScriptedGenerator(BaseGenerator):
    """Draws an image immediately, except for these prompts.

    `slow 2.5` draws after so many seconds. `until /a/file` draws when that file exists, or after two minutes.
    `refuse` and `fail` raise an error.

    If the variable DRAWN is set, each call appends a line with the process id and the prompt to that file.
    """

    def model_name(self) -> str:
        """Return a name with characters that must be escaped in a URL."""
        return "test/scripted-1:0"

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Follow the instruction in the prompt."""
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


NAME = f"{ScriptedGenerator.__module__}:{ScriptedGenerator.__name__}"
"""The value of GENERATOR for this generator."""
