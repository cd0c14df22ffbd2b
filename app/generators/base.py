"""What an image generator is: the class to extend for one's own AI model.

What a provider says of a model, for the operator.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from PIL import Image

from app.config.settings import Config


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """`status` is the provider's word, such as ACTIVE or LEGACY; `ends` is when the model goes, if known."""

    model: str
    status: str
    ends: datetime | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What to draw. `seed` is 0…4294967295 and always set; sizes are in pixels.

    `image_format` is a name in `app.core.objects.FORMATS`. A generator that gives a file's
    bytes may give another.
    """

    prompt: str
    width: int
    height: int
    seed: int
    negative_prompt: str = ""
    image_format: str = "png"


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """What was drawn: a Pillow image, or an image file's bytes, and the name of the model that drew it.

    `seed` draws it again; None where the model has none, or does not tell.
    """

    image: Image.Image | bytes
    model: str
    seed: int | None = None


class BaseGenerator(ABC):
    """Draws an image for a prompt.

    One instance serves all threads of a worker process, so `generate` must be thread-safe.
    Whatever it returns is checked like an upload before it is stored.
    """

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Make the generator from the settings; a generator without settings needs no own version."""
        return cls()

    def model_name(self) -> str:
        """What draws, as `/v1/models` tells it and `/v1/images/generations` takes it: the model's id."""
        return type(self).__name__

    def describe_model(self) -> ModelFacts | None:
        """What the provider says of the model, for the operator; None where there is no provider to ask.

        Raises what `generate` does, but for `PromptRefused`.
        """
        return None

    @abstractmethod
    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Draw `request.prompt` in about the size asked for.

        Raises `PromptRefused` where the model won't draw it, `GeneratorRefused`, `GeneratorUnreachable`,
        `GeneratorTimeout` or `GeneratorError` where it can't.
        """
