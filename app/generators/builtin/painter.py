"""The built-in generator: a landscape painter that follows the words of the prompt."""

from PIL import Image

from app.generators.base import BaseGenerator, GeneratedImage, GenerationRequest
from app.generators.builtin.abstract import paint_abstract
from app.generators.builtin.finish import finish
from app.generators.builtin.grounds import GROUNDS
from app.generators.builtin.picture import Picture
from app.generators.builtin.sky import paint_sky
from app.generators.builtin.space import paint_space
from app.generators.builtin.things import balloons, birds
from app.generators.builtin.weather import paint_lightning, paint_weather


class BuiltinGenerator(BaseGenerator):
    """Paints landscapes from the words of a prompt; needs no model, no network and no settings.

    The same prompt, seed and size give the same pixels. Any prompt will do: words it does not know
    choose among the scenes it can paint.
    """

    def generate(self, request: GenerationRequest) -> GeneratedImage:
        """Paint the request in exactly the size asked for."""
        return GeneratedImage(image=_paint(request), model="builtin", seed=request.seed)


def _paint(request: GenerationRequest) -> Image.Image:
    picture = Picture(request)
    if picture.scene.ground == "abstract":
        paint_abstract(picture)
    elif picture.scene.ground == "space":
        paint_space(picture)
    else:
        _paint_landscape(picture)
    return finish(picture)


def _paint_landscape(picture: Picture) -> None:
    paint_sky(picture)
    if picture.scene.has("storm"):
        paint_lightning(picture)
    GROUNDS[picture.scene.ground](picture)
    if picture.scene.has("balloon"):
        balloons(picture)
    fair = picture.scene.time != "night" and not picture.scene.has_any("rain", "snow", "storm")
    if picture.scene.has("birds", default=fair and picture.rng("flock").random() < 0.3):
        birds(picture)
    paint_weather(picture)
