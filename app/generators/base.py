"""The interface of an image generator. Extend `BaseGenerator` to add an AI model of your own."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from PIL import Image

from app.config.settings import Config


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One image to generate.

    `width` and `height` are in pixels. `seed` is 0…4294967295 and always set. `image_format` is a name in
    `app.core.objects.FORMATS`; a generator that returns a file's bytes may choose another format.
    """

    prompt: str
    width: int
    height: int
    seed: int
    negative_prompt: str = ""
    image_format: str = "png"


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """A generated image: a Pillow image or the bytes of an image file, and the name of its model.

    `seed` is the seed that generates this image again, or None if the model has no seeds or does not
    report them.
    """

    image: Image.Image | bytes
    model: str
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A provider's description of a model.

    `status` is the provider's own word, such as ACTIVE or LEGACY. `ends` is when the model will be switched
    off, or None if the provider gives no date.
    """

    model: str
    status: str
    ends: datetime | None = None


class BaseGenerator(ABC):
    """Generates an image from a prompt.

    One instance serves all threads of a worker process, so `generate` must be thread-safe. The image that
    it returns is checked like an upload before it is stored.
    """

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return a generator for these settings. Override it if your generator needs settings."""
        return cls()

    def model_name(self) -> str:
        """Return the model's id, which `/v1/models` lists and `/v1/images/generations` accepts."""
        return type(self).__name__

    def describe_model(self) -> ModelFacts | None:
        """Ask the provider about the model, for `flask bucket doctor`. Return None if there is no provider.

        Raises the same errors as `generate`, except `PromptRefused`.
        """
        return None

    @abstractmethod
    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Generate an image for `request.prompt`, of about the requested size.

        Raises `PromptRefused` if the model refuses the prompt; `GeneratorRefused`, `GeneratorUnreachable`,
        `GeneratorTimeout` or another `GeneratorError` if there is no image for another reason.
        """
