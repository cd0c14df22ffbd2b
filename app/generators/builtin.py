"""The built-in generator: adapts the package `painter` to the generator interface."""

from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest
from painter import PaintRequest, paint


class BuiltinGenerator(BaseGenerator):
    """Paints landscapes from the words of a prompt. It needs no AI model, no network and no settings.

    The same request always produces the same pixels. Every prompt produces a picture: if the prompt contains
    no word that the painter knows, a hash of the prompt determines the scene.
    """

    def model_name(self) -> str:
        """Return `builtin`, since there is no AI model."""
        return "builtin"

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Paint a picture of exactly the requested size."""
        image = paint(
            PaintRequest(request.prompt, request.width, request.height, request.seed, request.negative_prompt)
        )
        return GeneratedImage(image, "builtin", request.seed)
