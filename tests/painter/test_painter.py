"""The built-in generator: exact sizes, repeatable pixels, and pictures that follow the words."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image, ImageChops, ImageStat

from app.generators.base import GenerationRequest
from app.generators.builtin import BuiltinGenerator

SIDE = 96


def paint(
    prompt: str, seed: int = 7, size: tuple[int, int] = (SIDE, SIDE), negative: str = ""
) -> Image.Image:
    """The picture for a prompt."""
    image = BuiltinGenerator().generate(GenerationRequest(prompt, *size, seed, negative)).image
    assert isinstance(image, Image.Image)
    return image


def mean(image: Image.Image) -> list[float]:
    """The mean red, green and blue."""
    return ImageStat.Stat(image).mean


def difference(a: Image.Image, b: Image.Image) -> float:
    """The mean difference per channel, in levels."""
    return sum(ImageStat.Stat(ImageChops.difference(a, b)).mean) / 3


@pytest.mark.parametrize(
    "size", [(64, 64), (65, 127), (128, 72), (72, 128), (64, 2048), (2048, 64), (1, 1), (3, 200), (320, 320)]
)
@pytest.mark.parametrize("prompt", ["sunset over mountains", "sea with a boat", "city at night"])
def test_size_is_exactly_as_asked_for(prompt: str, size: tuple[int, int]) -> None:
    image = paint(prompt, size=size)
    assert (image.size, image.mode) == (size, "RGB")


@pytest.mark.parametrize(
    "prompt",
    [
        "mountains by a lake, a house, a boat",
        "sea, beach, palms, sailing boat",
        "lighthouse and house on the coast at dusk",
        "autumn forest in fog",
        "snow in the forest",
        "meadow with flowers, birds, rainbow",
        "desert with cactus and palms, hot air balloon",
        "city skyline at noon with a boat",
        "island with a lighthouse, night, moon and stars",
        "volcano in a storm",
        "ringed planet in a purple galaxy",
        "abstract neon waves",
        "pastel abstract, red",
        "aurora over winter mountains, black and white",
    ],
)
def test_same_request_gives_the_same_pixels_and_another_seed_another_picture(prompt: str) -> None:
    first = paint(prompt)
    assert paint(prompt).tobytes() == first.tobytes()
    assert difference(paint(prompt, seed=8), first) > 4


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        " \t\n",
        "...!?",
        "🦄🌈✨",
        "猫",
        "ein Satz ohne bekannte Dinge",
        "\ud800 lone surrogate \udfff",
        "NUL\x00inside",
        "x" * 10_000,
        "mountain " * 1_000,
        "مرحبا بالعالم",
        "no sun, no moon, no stars, no clouds",
        "../../etc/passwd%s{0}",
    ],
)
def test_any_prompt_gives_a_picture_with_some_contrast(prompt: str) -> None:
    image = paint(prompt, negative=prompt)
    assert image.size == (SIDE, SIDE)
    assert max(ImageStat.Stat(paint(prompt)).stddev) > 10


def test_model_is_named_builtin() -> None:
    generated = BuiltinGenerator().generate(GenerationRequest("sea", 64, 64, 1))
    assert generated.model == "builtin"


def test_night_is_darker_than_noon() -> None:
    assert sum(mean(paint("mountains at night"))) < 0.5 * sum(mean(paint("mountains at noon")))


@pytest.mark.parametrize(
    ("colour", "channel"), [("red", 0), ("rot", 0), ("green", 1), ("blue", 2), ("azul", 2), ("красный", 0)]
)
def test_named_colour_shifts_the_hue(colour: str, channel: int) -> None:
    named, other = mean(paint(f"{colour} waves, abstract")), mean(paint("abstract waves"))
    assert named[channel] == max(named)
    assert named[channel] / sum(named) > other[channel] / sum(other)


def test_black_and_white_has_no_colour() -> None:
    red, green, blue = mean(paint("mountains at sunset, black and white"))
    assert red == green == blue


def test_snow_makes_the_ground_brighter() -> None:
    ground = (0, SIDE * 3 // 4, SIDE, SIDE)
    green, white = (mean(paint(text).crop(ground)) for text in ("meadow at noon", "meadow in winter at noon"))
    assert sum(white) > 1.2 * sum(green)


def test_negative_prompt_takes_the_moon_out() -> None:
    with_moon, without = paint("sea at night"), paint("sea at night", negative="moon")
    sky = (0, 0, SIDE, SIDE // 2)
    assert max(high for _, high in with_moon.crop(sky).getextrema()) > 200  # type: ignore[misc]
    assert sum(mean(without.crop(sky))) < sum(mean(with_moon.crop(sky)))


def test_negation_in_the_prompt_counts_as_negative_prompt() -> None:
    shown, refused = paint("sea at night, moon"), paint("sea at night, no moon")
    assert sum(mean(refused)) < sum(mean(shown))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sea", "forest"),
        ("city", "desert"),
        ("montagne", "plage"),
        ("海", "森"),
        ("夜", "昼"),
        ("лес", "город"),
    ],
)
def test_words_choose_the_scene(one: str, other: str) -> None:
    assert difference(paint(one), paint(other)) > 10


def test_composition_stays_in_another_size() -> None:
    small = paint("a beautiful sunset over mountains")
    large = paint("a beautiful sunset over mountains", size=(SIDE * 3, SIDE * 3)).resize((SIDE, SIDE))
    assert difference(small, large) < 12


def test_threads_do_not_disturb_each_other() -> None:
    generator = BuiltinGenerator()
    requests = [GenerationRequest(text, SIDE, SIDE, 7) for text in ("sea", "forest", "city", "desert") * 2]
    with ThreadPoolExecutor(4) as pool:
        images = [generated.image for generated in pool.map(generator.generate, requests)]
    for request, image in zip(requests, images, strict=True):
        assert isinstance(image, Image.Image)
        assert image.tobytes() == paint(request.prompt).tobytes()
