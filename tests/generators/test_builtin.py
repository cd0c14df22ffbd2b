"""The built-in generator adapts the painter to the generator interface."""

from PIL import Image

from app.generators.base import GenerationRequest
from app.generators.builtin import BuiltinGenerator
from painter import PaintRequest, paint


def test_every_field_of_the_request_reaches_the_painter() -> None:
    generated = BuiltinGenerator().generate(GenerationRequest("sea, moon", 65, 33, 7, "moon"))
    assert isinstance(generated.image, Image.Image)
    assert generated.image.tobytes() == paint(PaintRequest("sea, moon", 65, 33, 7, "moon")).tobytes()


def test_the_model_is_named_builtin_and_the_seed_is_returned() -> None:
    generator = BuiltinGenerator()
    generated = generator.generate(GenerationRequest("sea", 64, 64, 7))
    assert (generated.model, generator.model_name(), generated.seed) == ("builtin", "builtin", 7)
