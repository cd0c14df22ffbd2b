"""The built-in generator: `painter`, behind the interface of image generators."""

from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest
from painter.painter import paint
from painter.scene import PaintOrder


class BuiltinGenerator(BaseGenerator):
    """Paints landscapes from the words of a prompt; needs no model, no network and no settings.

    The same prompt, seed and size give the same pixels. Any prompt will do: words it does not know
    choose among the scenes it can paint.
    """

    def model_name(self) -> str:
        """Return `builtin`: it is not an AI model."""
        return "builtin"

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Paint the request in exactly the size asked for."""
        order = PaintOrder(
            request.prompt, request.width, request.height, request.seed, request.negative_prompt
        )
        return GeneratedImage(image=paint(order), model="builtin", seed=request.seed)
