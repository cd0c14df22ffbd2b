"""The painter returns pictures of exactly the requested size that follow the prompt and are reproducible."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image, ImageChops, ImageStat

from painter import PaintRequest, paint

SIDE = 96


def picture_for(
    prompt: str, seed: int = 7, size: tuple[int, int] = (SIDE, SIDE), negative: str = ""
) -> Image.Image:
    """Return the picture for a prompt."""
    return paint(PaintRequest(prompt, *size, seed, negative))


def mean(image: Image.Image) -> list[float]:
    """Return the mean values of red, green and blue."""
    return ImageStat.Stat(image).mean


def difference(a: Image.Image, b: Image.Image) -> float:
    """Return the mean difference per channel, in 0…255."""
    return sum(ImageStat.Stat(ImageChops.difference(a, b)).mean) / 3


@pytest.mark.parametrize(
    "size", [(64, 64), (65, 127), (128, 72), (72, 128), (64, 2048), (2048, 64), (1, 1), (3, 200), (320, 320)]
)
@pytest.mark.parametrize("prompt", ["sunset over mountains", "sea with a boat", "city at night"])
def test_the_size_is_exactly_the_requested_one(prompt: str, size: tuple[int, int]) -> None:
    image = picture_for(prompt, size=size)
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
def test_the_same_request_gives_the_same_pixels_and_a_different_seed_a_different_picture(prompt: str) -> None:
    first = picture_for(prompt)
    assert picture_for(prompt).tobytes() == first.tobytes()
    assert difference(picture_for(prompt, seed=8), first) > 4


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
    image = picture_for(prompt, negative=prompt)
    assert image.size == (SIDE, SIDE)
    assert max(ImageStat.Stat(picture_for(prompt)).stddev) > 10


def test_night_is_darker_than_noon() -> None:
    assert sum(mean(picture_for("mountains at night"))) < 0.5 * sum(mean(picture_for("mountains at noon")))


@pytest.mark.parametrize(
    ("colour", "channel"), [("red", 0), ("rot", 0), ("green", 1), ("blue", 2), ("azul", 2), ("красный", 0)]
)
def test_a_named_colour_shifts_the_hue(colour: str, channel: int) -> None:
    named, other = mean(picture_for(f"{colour} waves, abstract")), mean(picture_for("abstract waves"))
    assert named[channel] == max(named)
    assert named[channel] / sum(named) > other[channel] / sum(other)


def test_black_and_white_has_no_colour() -> None:
    red, green, blue = mean(picture_for("mountains at sunset, black and white"))
    assert red == green == blue


def test_snow_makes_the_ground_brighter() -> None:
    ground = (0, SIDE * 3 // 4, SIDE, SIDE)
    green, white = (
        mean(picture_for(text).crop(ground)) for text in ("meadow at noon", "meadow in winter at noon")
    )
    assert sum(white) > 1.2 * sum(green)


def test_a_negative_prompt_excludes_the_moon() -> None:
    with_moon, without = picture_for("sea at night"), picture_for("sea at night", negative="moon")
    sky = (0, 0, SIDE, SIDE // 2)
    assert max(high for _, high in with_moon.crop(sky).getextrema()) > 200  # type: ignore[misc]
    assert sum(mean(without.crop(sky))) < sum(mean(with_moon.crop(sky)))


def test_a_negation_in_the_prompt_excludes_the_moon() -> None:
    shown, refused = picture_for("sea at night, moon"), picture_for("sea at night, no moon")
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
def test_words_choose_the_subject(one: str, other: str) -> None:
    assert difference(picture_for(one), picture_for(other)) > 10


def test_the_composition_is_the_same_at_a_different_size() -> None:
    small = picture_for("a beautiful sunset over mountains")
    large = picture_for("a beautiful sunset over mountains", size=(SIDE * 3, SIDE * 3)).resize((SIDE, SIDE))
    assert difference(small, large) < 12


def test_threads_do_not_affect_each_other() -> None:
    prompts = ("sea", "forest", "city", "desert") * 2
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(picture_for, prompts))
    for prompt, image in zip(prompts, images, strict=True):
        assert image.tobytes() == picture_for(prompt).tobytes()
