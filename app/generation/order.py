"""What a client orders, and what it gets."""

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from app.generators.base import GenerationRequest
from app.service import StoredImage

MOST_SIDE = 2048
"""Pixels of a side of the largest image that can be ordered."""

_SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class Order:
    """Images to draw. Sizes are in pixels; `image_format` is a name in `FORMATS`; None as seed means any."""

    prompt: str
    width: int = 1024
    height: int = 1024
    image_format: str = "png"
    folder: str | None = None
    seed: int | None = None
    negative_prompt: str = ""
    count: int = 1

    def requests(self) -> list[GenerationRequest]:
        """What each image asks of the generator: a seed of its own, counted up from the one given."""
        first = secrets.randbelow(_SEEDS) if self.seed is None else self.seed
        request = GenerationRequest(
            self.prompt, self.width, self.height, first, self.negative_prompt, self.image_format
        )
        return [replace(request, seed=(first + number) % _SEEDS) for number in range(self.count)]

    def digest(self, *more: str) -> str:
        """The same text for the same order, and `more` that goes with it."""
        text = json.dumps([asdict(self), *more], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StoredGeneration:
    """A generated image in the store, what drew it, and when; `seed` is None where the model has none."""

    image: StoredImage
    model: str
    seed: int | None
    time: datetime
