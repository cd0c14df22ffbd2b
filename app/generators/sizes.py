"""The size asked for, in the terms of models that don't draw every size."""

import math
from collections.abc import Iterable

BEDROCK_RATIOS = ("16:9", "1:1", "21:9", "2:3", "3:2", "4:5", "5:4", "9:16", "9:21")
"""What Stability's models take
(https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-diffusion-stable-image-core-text-image-request-response.html)."""

_OLDER_GPT_SIZES = ("1024x1024", "1536x1024", "1024x1536")
_STEP = 16
_LEAST_PIXELS = 655_360
"""Of `gpt-image-2` and later (https://learn.microsoft.com/azure/foundry/openai/how-to/dall-e)."""


def bedrock_ratio(width: int, height: int) -> str:
    """The ratio in `BEDROCK_RATIOS` nearest to that of width and height."""
    return min(BEDROCK_RATIOS, key=lambda ratio: _distance(ratio.split(":"), width, height))


def openai_size(model: str, width: int, height: int) -> str:
    """The size to ask `model` for.

    OpenAI's older models draw three sizes; the newer ones multiples of 16, no longer than three times the
    other side, and no fewer than 655,360 pixels. Other models take what they are asked for.
    """
    name = model.rpartition("/")[2]
    if name.startswith(("gpt-image-1", "chatgpt-image")):
        return nearest_size(_OLDER_GPT_SIZES, width, height)
    scale = 1.0
    if name.startswith("gpt-image"):
        width, height = min(width, 3 * height), min(height, 3 * width)
        scale = max(1.0, math.sqrt(_LEAST_PIXELS / (width * height)))
    return "x".join(str(math.ceil(side * scale / _STEP) * _STEP) for side in (width, height))


def nearest_size(sizes: Iterable[str], width: int, height: int) -> str:
    """Return the one of `sizes`, such as 1024x768, with the nearest ratio; of several, the nearest area."""

    def distance(size: str) -> tuple[float, float]:
        pair = size.split("x")
        return _distance(pair, width, height), abs(math.log(int(pair[0]) * int(pair[1]) / (width * height)))

    return min(sizes, key=distance)


def _distance(pair: list[str], width: int, height: int) -> float:
    """How far the ratios lie apart; 2:1 is as far from 1:1 as 1:2 is."""
    across, down = map(int, pair)
    return abs(math.log(across / down) - math.log(width / height))
