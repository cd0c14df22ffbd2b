"""The built-in generator: adapts the package `painter` to the interface of generators."""

from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest
from painter import PaintRequest, paint


class BuiltinGenerator(BaseGenerator):
    """Paints landscapes from the words of a prompt, without a model, a network or settings.

    The same prompt, seed and size give the same pixels. Every prompt gives a picture: if it has no word that
    the painter knows, a hash of the prompt chooses the scene.
    """

    def model_name(self) -> str:
        """Return `builtin`; there is no AI model."""
        return "builtin"

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Paint a picture of exactly the requested size."""
        image = paint(
            PaintRequest(request.prompt, request.width, request.height, request.seed, request.negative_prompt)
        )
        return GeneratedImage(image, "builtin", request.seed)
