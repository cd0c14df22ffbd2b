"""What a setting may be: a marshmallow field for each kind, whose messages say what to write instead."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import limits
from marshmallow import ValidationError
from marshmallow import fields as ma
from marshmallow.validate import URL, Range, Regexp

from app.config.api_keys import ApiKey, parse_keys

KIB, MIB, GIB = 1024, 1024**2, 1024**3

_PLUG_IN = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
_ORIGIN = r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?"
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
"""Browsers leave them out of `Origin` (RFC 6454, 6.2)."""

_HOST = r"[A-Za-z0-9._-]+|(?=.*:.*:)[0-9A-Fa-f:.]+"
_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_UNITS |= {"KIB": KIB, "MIB": MIB, "GIB": GIB, "TIB": 1024**4}
_SECONDS = {"": Decimal(1), "ms": Decimal("0.001")}
_SECONDS |= dict.fromkeys(("s", "sec", "second", "seconds"), Decimal(1))
_SECONDS |= dict.fromkeys(("m", "min", "minute", "minutes"), Decimal(60))
_SECONDS |= dict.fromkeys(("h", "hour", "hours"), Decimal(3600))
_SECONDS |= dict.fromkeys(("d", "day", "days"), Decimal(86_400))

_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)+/?", re.ASCII)
_LONGEST_PREFIX = 255


def parse_prefix(text: str) -> str | None:
    """Return a prefix as `SCRIPT_NAME` has it: "" for none, else with a leading slash and no trailing one.

    None if it is not a prefix. So no `//host`, dot segment, escape or line end ever gets into a URL.
    """
    text = text.strip(" \t")
    if text in ("", "/"):
        return ""
    return text.rstrip("/") if len(text) <= _LONGEST_PREFIX and _PREFIX.fullmatch(text) else None


class Size(ma.Field[int]):
    """A number of bytes such as `512MiB`, `10MB` or `1048576`, not below `least`."""

    def __init__(self, least: int = 1) -> None:
        super().__init__()
        self._least = least

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]{0,3})", value.strip(), re.ASCII)
        if not match or match[2].upper() not in _UNITS:
            raise ValidationError("is not a size such as 512MiB, 10MB or 1048576")
        size = int(float(match[1]) * _UNITS[match[2].upper()])
        if size < self._least:
            raise ValidationError(f"must be at least {self._least} bytes")
        return size


class Duration(ma.Field[int]):
    """Whole seconds from `least` to `most`, as a number alone or with a unit: `300`, `5m`, `1.5h`."""

    def __init__(self, least: int, most: int) -> None:
        super().__init__(validate=Range(least, most, error="must lie between {min} and {max} seconds"))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        match = re.fullmatch(r"(-?\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]{0,7})", value.strip(), re.ASCII)
        unit = match and _SECONDS.get(match[2].lower())
        if not match or unit is None:
            raise ValidationError("is not a duration such as 300 (seconds), 5m, 2h or 1d")
        seconds = Decimal(match[1]) * unit
        if seconds % 1:
            raise ValidationError("must be a whole number of seconds")
        return int(seconds)


class OneOf(ma.Field[str]):
    """One of some words, in capitals or not; with `plug_in` also a class as `package.module:Class`."""

    def __init__(self, *choices: str, plug_in: bool = False) -> None:
        super().__init__()
        self._choices = {choice.lower(): choice for choice in choices}
        self._plug_in = plug_in

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        word = value.strip()
        if word.lower() in self._choices:
            return self._choices[word.lower()]
        if self._plug_in and re.fullmatch(_PLUG_IN, word):
            return str(word)
        names = ", ".join(self._choices.values())
        raise ValidationError(f"must be one of {names}{' or package.module:Class' * self._plug_in}")


class Switch(ma.Boolean):
    """true or false, yes or no, on or off, 1 or 0, in capitals or not."""

    def __init__(self) -> None:
        super().__init__(error_messages={"invalid": "must be true or false"})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        return bool(super()._deserialize(value.strip().lower(), attr, data, **kwargs))


class Host(ma.Field[str]):
    """An address to listen on, or a name that stands for one; an IPv6 address may have brackets."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        bare = value.strip()
        host = bare[1:-1] if bare.startswith("[") and bare.endswith("]") else bare
        if re.fullmatch(_HOST, host, re.ASCII):
            return str(host)
        raise ValidationError(
            "is not an address such as 0.0.0.0 or ::1, nor a name. The port is PORT; "
            "for a Unix socket start gunicorn with --bind unix:/path"
        )


class Words(ma.Field[tuple[str, ...]]):
    """Words set apart by commas; with `choices`, only those."""

    def __init__(self, choices: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._choices = choices

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        text = value.lower() if self._choices else value
        words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
        if self._choices and (not words or not set(words) <= set(self._choices)):
            raise ValidationError(f"must be a list out of {', '.join(self._choices)}")
        return words


class Keys(ma.Field[tuple[ApiKey, ...]]):
    """API keys as `app.config.api_keys` spells them."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[ApiKey, ...]:
        try:
            keys = parse_keys(value)
        except ValueError as exc:
            raise ValidationError(str(exc)) from exc
        if not keys:
            raise ValidationError("holds no key")
        return keys


class Rate(ma.Field[str]):
    """A rate such as `60/minute`, or several with `;` between; `none` is an empty one."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if value.strip().lower() == "none":
            return ""
        try:
            rates = limits.parse_many(value)
        except ValueError as exc:
            raise ValidationError("is not a rate such as 60/minute, nor none") from exc
        if not all(rate.amount for rate in rates):
            raise ValidationError("would let nothing pass; no limit is none")
        return str(value)


class Origins(ma.Field[tuple[str, ...]]):
    """Origins (RFC 6454) set apart by commas, or `*` for all."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        origins = tuple(word.strip().lower() for word in value.split(",") if word.strip())
        if origins != ("*",) and not all(re.fullmatch(_ORIGIN, origin, re.ASCII) for origin in origins):
            raise ValidationError("must be * or a list of origins such as https://app.example.org")
        return tuple(
            origin.removesuffix(_DEFAULT_PORTS.get(origin.partition(":")[0], "")) for origin in origins
        )


class HostNames(Words):
    """Names of hosts, set apart by commas, without ports; IPv6 addresses, too."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        names = super()._deserialize(value, attr, data, **kwargs)
        if not all(re.fullmatch(_HOST, name) for name in names):
            raise ValidationError("must be a list of names such as images.example.org, with commas between")
        return names


class PathPrefix(ma.Field[str]):
    """The path of a mount point, such as `/images`; `/` is none."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        prefix = parse_prefix(value)
        if prefix is None:
            raise ValidationError(
                "must be a path such as /images, of ASCII letters, digits, '.', '_', '~' and '-' between "
                "single slashes"
            )
        return prefix


class Directory(ma.Field[Path]):
    """A directory's path; `~` is the home directory."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Path:
        if "\0" in value:
            raise ValidationError("is not a path")
        return Path(value).expanduser()


def number(least: int, most: int) -> ma.Integer:
    """A whole number from `least` to `most`."""
    return ma.Integer(
        validate=Range(least, most, error="must lie between {min} and {max}"),
        error_messages={"invalid": "is not a whole number"},
    )


def bucket() -> ma.String:
    """A bucket's name."""
    return ma.String(validate=Regexp(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}\Z", error="is not a bucket's name"))


class Counters(ma.Field[str]):
    """Where rate limits count: a URI."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        scheme, separator, rest = value.strip().partition("://")
        uri = f"{scheme.lower()}{separator}{rest}"
        _check_counters(uri)
        return uri


def _check_counters(uri: str) -> None:
    """Raise `ValidationError`, whose text has nothing of the URI: what is no port may be a password."""
    try:
        parts = urlsplit(uri)
        well_formed = parts.port is None or parts.hostname is not None
    except ValueError:
        well_formed = False
    if not well_formed or not re.fullmatch(r"memory://|rediss?://\S+", uri):
        raise ValidationError(
            "must be memory://, redis://HOST:PORT or rediss://HOST:PORT, with the special characters of a "
            "password percent-encoded"
        )


def header_word() -> ma.String:
    """What is sent in a header, as keys are."""
    return ma.String(
        validate=Regexp(r"[!-~]+\Z", error="must be visible ASCII characters, without spaces between them")
    )


def region() -> ma.String:
    """The name of a region, AWS's or a compatible server's."""
    return ma.String(validate=Regexp(r"[A-Za-z0-9-]{1,64}\Z", error="is not a region such as us-east-1"))


def url() -> ma.String:
    """An http(s) URL."""
    return ma.String(
        validate=URL(schemes={"http", "https"}, require_tld=False, error="is not an http(s) URL")
    )


def base_url() -> ma.String:
    """An http(s) URL that paths can be put behind."""
    field = url()
    bare = Regexp(r"[^?#]*\Z", error="must end before any ? or #, since keys are put behind it")
    open_to_all = Regexp(
        r"https?://[^/@]*(/|\Z)", re.IGNORECASE, error="must hold no password: clients are told it"
    )
    field.validators = [*field.validators, bare, open_to_all]
    return field
