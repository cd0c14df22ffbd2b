"""The interface of image generators. To add an image model, subclass `BaseGenerator`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from PIL import Image

from app.config.settings import Config


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One image to generate.

    `width` and `height` are in pixels. `seed` is always set. It is an integer in 0…4294967295. `image_format`
    is the name, in `app.core.objects.FORMATS`, of the format that the client requested. A generator that
    returns the bytes of an image file may choose a different format.
    """

    prompt: str
    width: int
    height: int
    seed: int
    negative_prompt: str = ""
    image_format: str = "png"


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """A generated image: a Pillow image or the bytes of an image file, and the name of the model.

    `seed` is the seed with which the model generates the same image again, or None if the model does not
    support seeds or does not report the seed.
    """

    image: Image.Image | bytes
    model: str
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A provider's description of a model.

    `status` is the provider's name for the model's status, such as ACTIVE or LEGACY. `ends` is the time at
    which the model will be switched off, or None if the provider gives no date.
    """

    model: str
    status: str
    ends: datetime | None = None


class BaseGenerator(ABC):
    """Generates images from prompts.

    All threads of a worker process share one instance, so `generate` must be thread-safe. A generated image
    passes the same checks as an uploaded image before it is stored.
    """

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return a generator configured by `config`. Override this method if a generator needs settings."""
        return cls()

    def model_name(self) -> str:
        """Return the ID of the model, which `/v1/models` lists and `/v1/images/generations` accepts."""
        return type(self).__name__

    def describe_model(self) -> ModelFacts | None:
        """Return the provider's description of the model, or None if there is no provider.

        `flask bucket doctor` calls this. Raises the same errors as `generate`, except `PromptRefused`.
        """
        return None

    @abstractmethod
    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Generate an image for `request.prompt`, with approximately the requested size.

        Raises `PromptRefused` if the model refuses the prompt. If the model returns no image for another
        reason, raises `GeneratorRefused`, `GeneratorUnreachable`, `GeneratorTimeout` or a plain
        `GeneratorError`.
        """
