"""Which variants of an image are permitted, and the canonical spelling of each.

The *listed* variants are permitted for everyone: the widths of `VARIANT_WIDTHS`, optionally with `still`, and
the presets. Their number limits what the variants of an image can cost. All other variants need a signature.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Self
from urllib.parse import unquote

from app.config.settings import Config
from app.core.errors import InvalidVariant, VariantNotPermitted
from app.core.variant_keys import VariantPath
from app.core.variant_specs import FITS, SIDES, SMART, VariantSpec, parse_spec
from app.services.signing import UrlSigner
from app.services.urls import variant_url_path

WIDTH_EXTENSIONS = ("avif", "webp", "jpg", "png")
"""GIF is missing, since it is larger and worse than the others. With presets, it can be requested."""

STILL_EXTENSIONS = ("avif", "webp", "png")
"""JPEG is missing, since it has no animations, so that `still` changes nothing."""

PRESET_EXTENSIONS = (*WIDTH_EXTENSIONS, "gif")

QUERY_NAMES = frozenset({"w", "h", "fit", "gravity", "bg", "q", "still", "format", "preset"})
"""The parameters that request a variant in the query of an image's URL."""

SIGNATURE_NAMES = ("exp", "sig")
"""The parameters of a signature in the query of a variant's URL."""

_ASKS_FOR_VARIANT = re.compile(rf"(?:^|&)(?:{'|'.join(sorted(QUERY_NAMES))})(?:[=&]|$)")

_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)
_FOCAL_POINT = re.compile(r"fp[0-9.x]+", re.ASCII)
_COLOUR = re.compile(r"#?[0-9a-f]{6}", re.ASCII)
_FORMATS = {"auto": "", "jpeg": "jpg"} | {extension: extension for extension in PRESET_EXTENSIONS}
_SWITCH = {"1": True, "true": True, "0": False, "false": False}


class VariantRules:
    """Decides which variants are permitted.

    - `mode`: `on`; `presets`, if no width is listed; or `off`, if not even signed variants are
      permitted.
    - `widths`: the listed widths in pixels, in ascending order.
    - `presets`: the specs of the presets by name.
    - `listed`: `<name>.<extension>` of all listed variants of an image, in the canonical spelling.
    - `negotiable`: names of variants that everyone may request without an extension.
    """

    def __init__(
        self, mode: str, widths: Iterable[int], presets: Mapping[str, VariantSpec], signer: UrlSigner
    ) -> None:
        self.mode = mode
        self.widths = tuple(sorted(widths)) if mode == "on" else ()
        self.presets: Mapping[str, VariantSpec] = MappingProxyType(dict(presets))
        self.signer = signer
        names: dict[str, tuple[str, ...]]
        names = dict.fromkeys((f"w{width}" for width in self.widths), WIDTH_EXTENSIONS)
        names |= dict.fromkeys((f"w{width},still" for width in self.widths), STILL_EXTENSIONS)
        names |= dict.fromkeys(self.presets if mode != "off" else (), PRESET_EXTENSIONS)
        self.negotiable = frozenset(names)
        self.listed = frozenset(f"{name}.{ext}" for name, extensions in names.items() for ext in extensions)

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Return the rules in the settings. Raises `ConfigError` if the key of signatures is unusable."""
        signer = UrlSigner.from_config(config)
        return cls(config.variants, config.variant_widths, dict(config.variant_presets), signer)

    def definitions(self) -> dict[str, str]:
        """Return the spec of each listed variant by its name."""
        return {name: str(self.presets.get(name, name)) for name in sorted(self.negotiable)}

    def canonical(self, path: VariantPath) -> tuple[VariantPath, VariantSpec]:
        """Return the canonical spelling of the path, and the spec that its name stands for.

        Raises `InvalidVariant` if the name is neither a preset nor a spec.
        """
        if path.extension and path.format is None:
            raise InvalidVariant("Unsupported format. Use avif, webp, jpg, png or gif as the extension.")
        extension = path.format.extension if path.format else ""
        preset = path.name.lower()
        if preset in self.presets:
            return VariantPath(path.source, preset, extension), self.presets[preset]
        spec = self._parse(path.name)
        if extension == "jpg" and spec.still and str(without_still := replace(spec, still=False)):
            spec = without_still
        name = str(spec)
        if not name:
            raise InvalidVariant("This variant changes nothing. Add a size such as w640.")
        return VariantPath(path.source, name, extension), spec

    def is_listed(self, path: VariantPath) -> bool:
        """Return whether everyone may request the variant. The path must have the canonical spelling."""
        if path.extension:
            return f"{path.name}.{path.extension}" in self.listed
        return path.name in self.negotiable

    def check(self, path: VariantPath, query: Mapping[str, str]) -> None:
        """Raise an error unless the variant is listed, or `sig` and `exp` in the query permit it.

        The path must have the canonical spelling. Raises `VariantNotPermitted` if there is no signature, or
        if variants are switched off; `SignatureRefused` if the signature is wrong or has expired.
        """
        if self.mode == "off":
            raise VariantNotPermitted("Variants are switched off on this server.")
        if self.is_listed(path):
            return
        if "sig" not in query:
            raise VariantNotPermitted(self._what_is_permitted(path))
        self.signer.verify(variant_url_path(path), query["sig"], query.get("exp"))

    def from_query(self, query: Mapping[str, str]) -> tuple[str, str] | None:
        """Return the canonical name and extension of the variant that the parameters of a query describe.

        The extension is empty if the format is to be negotiated. Return None if the query contains none of
        the parameters in `QUERY_NAMES`, or if variants are switched off. Raises `InvalidVariant` if a value
        is invalid.
        """
        given = {name: query[name] for name in QUERY_NAMES & query.keys()}
        if not given or self.mode == "off":
            return None
        extension = _FORMATS.get(given.pop("format", "auto").lower())
        if extension is None:
            raise InvalidVariant("The parameter format must be auto, avif, webp, jpg, png or gif.")
        preset = given.pop("preset", None)
        if preset is not None and (given or preset.lower() not in self.presets):
            raise InvalidVariant(f"The parameter preset must be one of {self._names()}, without a size.")
        if preset is None and not given:
            raise InvalidVariant("The parameter format needs a size or a preset: w=640&format=webp")
        name = preset or ",".join(filter(None, (_word(*parameter) for parameter in given.items())))
        path, _ = self.canonical(VariantPath("", name, extension))
        return path.name, path.extension

    def _parse(self, name: str) -> VariantSpec:
        try:
            return parse_spec(name)
        except InvalidVariant as exc:
            raise InvalidVariant(
                f"{exc.message} The presets are {self._names()}, without other words. The extensions are "
                "avif, webp, jpg, png and gif."
            ) from exc

    def _what_is_permitted(self, path: VariantPath) -> str:
        spec = self._parse(path.name)
        wanted = spec.width or spec.height
        above = bisect_left(self.widths, wanted)
        neighbours = self.widths[max(above - 1, 0) : above + 1]
        width = min(neighbours, key=lambda width: abs(width - wanted), default=0)
        nearest = f"The nearest permitted width is w{width}. " if width else ""
        if width == spec.width and width:
            nearest = f"Permitted is w{width} alone, as {', '.join(WIDTH_EXTENSIONS)}. "
        return (
            f"This variant is not permitted without a signature. {nearest}"
            f"The permitted presets are {self._names()}. To sign a URL, run: flask images sign"
        )

    def _names(self) -> str:
        return ", ".join(self.presets)


def asks_for_variant(query: str) -> bool:
    """Return whether a query string contains one of the parameters in `QUERY_NAMES`.

    This is fast, and may be wrong if a value contains an encoded `&`. `from_query` never is.
    """
    return _ASKS_FOR_VARIANT.search(unquote(query)) is not None


def _word(name: str, value: str) -> str:
    """Return the word of a spec that a parameter of a query stands for, or an empty string if there is none.

    Raises `InvalidVariant` if the value has the wrong form. Whether it is in range is checked later.
    """
    value = value.lower()
    if name in ("w", "h", "q") and _NUMBER.fullmatch(value):
        return f"{name}{value}"
    if name == "fit" and value in FITS:
        return value
    if name == "gravity" and (value in (*SIDES, SMART) or _FOCAL_POINT.fullmatch(value)):
        return value
    if name == "bg" and _COLOUR.fullmatch(value):
        return f"bg{value.removeprefix('#')}"
    if name == "still" and value in _SWITCH:
        return "still" if _SWITCH[value] else ""
    raise InvalidVariant(f"The parameter {name} has the invalid value {value!r:.40}.")
