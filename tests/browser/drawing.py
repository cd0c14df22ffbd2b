"""A generator for the browser's tests: quick, unless the prompt says what shall go wrong."""

import time

from PIL import Image

from app.errors import PromptRefused
from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest


class Drawing(BaseGenerator):
    """One colour; "slowly" takes three seconds, "forbidden" is refused."""

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """A picture whose colour follows from the seed."""
        if "forbidden" in request.prompt:
            raise PromptRefused
        if "slowly" in request.prompt:
            time.sleep(3)
        colour = tuple(request.seed.to_bytes(4)[1:])
        return GeneratedImage(
            Image.new("RGB", (request.width, request.height), colour), "one-colour", request.seed
        )
