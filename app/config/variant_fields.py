"""Marshmallow fields for the settings of variants: widths, presets, and the keys that sign URLs."""

import re
from typing import Any

from marshmallow import ValidationError
from marshmallow import fields as ma

from app.core.errors import InvalidVariant
from app.core.variant_keys import INFO
from app.core.variant_specs import MAX_SIDE, VariantSpec, parse_spec

SRCSET = "srcset"
"""The name under which responses list URLs of several widths, next to the names of the presets."""

Presets = tuple[tuple[str, VariantSpec], ...]
"""The names of the presets and the variants that they stand for."""

DEFAULT_WIDTHS = (
    *(16, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 480),
    *(640, 750, 828, 960, 1080, 1200, 1440, 1600, 1920, 2048, 2560, 3840),
)
"""Widths of icons, of images in columns and grids, and of common screens, also with two pixels per point."""

_MAX_WIDTHS = 64
_MAX_PRESETS = 64
_MIN_KEY_LENGTH = 16

_PRESET_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
_LIKE_A_WORD = re.compile(r"(?:[whq]|bg|fp)[0-9].*", re.ASCII)
"""Matches words of a spec, including words whose value is out of range."""

_SIGNING_KEY = re.compile(rf"[!-+\--~]{{{_MIN_KEY_LENGTH},}}", re.ASCII)
"""Matches visible ASCII characters except the comma."""


class VariantWidths(ma.Field[tuple[int, ...]]):
    """Comma-separated widths in pixels. They are sorted, and duplicates are removed."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[int, ...]:
        words = [word.strip() for word in value.split(",") if word.strip()]
        are_numbers = all(re.fullmatch(r"[0-9]{1,6}", word, re.ASCII) for word in words)
        widths = sorted(set(map(int, words))) if are_numbers else []
        if not 1 <= len(widths) <= _MAX_WIDTHS or widths[0] < 1 or widths[-1] > MAX_SIDE:
            raise ValidationError(
                f"must be a comma-separated list of at most {_MAX_WIDTHS} widths in pixels, each from 1 to "
                f"{MAX_SIDE}."
            )
        return tuple(widths)


class VariantPresets(ma.Field[Presets]):
    """Named variants, separated by semicolons: `thumb=w320,h320,cover,smart;card=w640`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Presets:
        entries = [entry.strip() for entry in value.split(";") if entry.strip()]
        presets = dict(map(_parse_preset, entries))
        if len(presets) < len(entries):
            raise ValidationError("contains the same name twice. Rename or remove one of the presets.")
        if not 1 <= len(presets) <= _MAX_PRESETS:
            raise ValidationError(f"must contain at least one preset, and at most {_MAX_PRESETS}.")
        return tuple(presets.items())


class SigningKeys(ma.Field[tuple[str, ...]]):
    """Keys that sign URLs, separated by commas or white space. Error messages never quote a key."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        keys = tuple(dict.fromkeys(filter(None, re.split(r"[,\s]+", value))))
        if not keys or not all(map(is_signing_key, keys)):
            raise ValidationError(
                f"must be keys of at least {_MIN_KEY_LENGTH} visible ASCII characters each, separated by "
                "commas or spaces. Generate one with: openssl rand -hex 32"
            )
        return keys


def is_signing_key(text: str) -> bool:
    """Return whether `text` is long enough and contains only characters that a key may have."""
    return _SIGNING_KEY.fullmatch(text) is not None


def _parse_preset(entry: str) -> tuple[str, VariantSpec]:
    name, equals, words = (part.strip() for part in entry.partition("="))
    if not equals:
        raise ValidationError(
            f"must be presets such as thumb=w320,h320,cover;card=w640, but {entry!r:.60} has no '='."
        )
    if not _PRESET_NAME.fullmatch(name) or name in (INFO, SRCSET) or _is_word(name):
        raise ValidationError(
            f"can't have a preset with the name {name!r:.60}. Use at most 32 lowercase letters, digits, '_' "
            f"and '-', starting with a letter; but not {INFO}, {SRCSET} or a word of a variant such as w640 "
            "or still."
        )
    try:
        return name, parse_spec(words)
    except InvalidVariant as exc:
        raise ValidationError(f"has the invalid preset {name}. {exc.message}") from exc


def _is_word(name: str) -> bool:
    """Return whether the name could be confused with a spec."""
    try:
        parse_spec(name)
    except InvalidVariant:
        return _LIKE_A_WORD.fullmatch(name) is not None
    return True


DEFAULT_PRESETS: Presets = tuple(map(_parse_preset, ("thumb=w320,h320,cover,smart", "card=w640")))
