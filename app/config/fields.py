"""Marshmallow fields that parse and validate the settings. Error messages say which values are allowed."""

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

_SIZE_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_SIZE_UNITS |= {"KIB": KIB, "MIB": MIB, "GIB": GIB, "TIB": 1024**4}

_DURATION_UNITS = {"": Decimal(1), "ms": Decimal("0.001")}
_DURATION_UNITS |= dict.fromkeys(("s", "sec", "second", "seconds"), Decimal(1))
_DURATION_UNITS |= dict.fromkeys(("m", "min", "minute", "minutes"), Decimal(60))
_DURATION_UNITS |= dict.fromkeys(("h", "hour", "hours"), Decimal(3600))
_DURATION_UNITS |= dict.fromkeys(("d", "day", "days"), Decimal(86_400))

_CLASS_PATH = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
_HOST = r"[A-Za-z0-9._-]+|(?=.*:.*:)[0-9A-Fa-f:.]+"
"""A host name, an IPv4 address or an IPv6 address. Only IPv6 addresses contain two or more colons."""

_ORIGIN = r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?"
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
"""Browsers omit these ports in `Origin` (RFC 6454, 6.2)."""

_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)+/?", re.ASCII)
_MAX_PREFIX_LENGTH = 255


class ByteSize(ma.Field[int]):
    """A number of bytes, `least` or more, such as `512MiB`, `10MB` or `1048576`."""

    def __init__(self, least: int = 1) -> None:
        super().__init__()
        self._least = least

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]{0,3})", value.strip(), re.ASCII)
        if not match or match[2].upper() not in _SIZE_UNITS:
            raise ValidationError("is not a size. Use a number of bytes, or a unit: 1048576, 10MB, 512MiB.")
        size = int(float(match[1]) * _SIZE_UNITS[match[2].upper()])
        if size < self._least:
            raise ValidationError(f"must be at least {self._least} bytes.")
        return size


class Duration(ma.Field[int]):
    """A whole number of seconds from `least` to `most`, such as `300`, `5m` or `1.5h`."""

    def __init__(self, least: int, most: int) -> None:
        super().__init__(validate=Range(least, most, error="must be from {min} to {max} seconds."))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        match = re.fullmatch(r"(-?\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]{0,7})", value.strip(), re.ASCII)
        unit = match and _DURATION_UNITS.get(match[2].lower())
        if not match or unit is None:
            raise ValidationError("is not a duration. Use seconds, or a unit: 300, 5m, 2h, 1d.")
        seconds = Decimal(match[1]) * unit
        if seconds % 1:
            raise ValidationError("must be a whole number of seconds.")
        return int(seconds)


class Choice(ma.Field[str]):
    """One of `choices`, ignoring case. With `custom_class`, `package.module:Class` is allowed too."""

    def __init__(self, *choices: str, custom_class: bool = False) -> None:
        super().__init__()
        self._choices = {choice.lower(): choice for choice in choices}
        self._custom_class = custom_class

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        word = value.strip()
        if word.lower() in self._choices:
            return self._choices[word.lower()]
        if self._custom_class and re.fullmatch(_CLASS_PATH, word):
            return str(word)
        names = ", ".join(self._choices.values())
        raise ValidationError(f"must be one of {names}{' or package.module:Class' * self._custom_class}.")


class Switch(ma.Boolean):
    """A boolean, written as true or false, yes or no, on or off, 1 or 0, ignoring case."""

    def __init__(self) -> None:
        super().__init__(error_messages={"invalid": "must be true or false."})

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        return bool(super()._deserialize(value.strip().lower(), attr, data, **kwargs))


class Host(ma.Field[str]):
    """An IP address or a host name to listen on. An IPv6 address may be in brackets."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        bare = value.strip()
        host = bare[1:-1] if bare.startswith("[") and bare.endswith("]") else bare
        if re.fullmatch(_HOST, host, re.ASCII):
            return str(host)
        raise ValidationError(
            "is not an IP address or a host name, such as 0.0.0.0, ::1 or localhost. Set the port in PORT; "
            "for a Unix socket start gunicorn with --bind unix:/path."
        )


class WordList(ma.Field[tuple[str, ...]]):
    """A comma-separated list of words. Duplicates are removed.

    With `choices`, only these words are allowed, and at least one is required.
    """

    def __init__(self, choices: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._choices = choices

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        text = value.lower() if self._choices else value
        words = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
        if self._choices and (not words or not set(words) <= set(self._choices)):
            raise ValidationError(f"must be a comma-separated list of these: {', '.join(self._choices)}.")
        return words


class HostNames(WordList):
    """Comma-separated host names or IP addresses, without ports."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        names = super()._deserialize(value, attr, data, **kwargs)
        if not all(re.fullmatch(_HOST, name) for name in names):
            raise ValidationError(
                "must be a comma-separated list of host names such as images.example.org, without scheme, "
                "port or wildcard."
            )
        return names


class ApiKeys(ma.Field[tuple[ApiKey, ...]]):
    """Comma-separated API keys in the format of `app.config.api_keys`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[ApiKey, ...]:
        try:
            keys = parse_keys(value)
        except ValueError as exc:
            raise ValidationError(str(exc)) from exc
        if not keys:
            raise ValidationError("contains no key. Generate one with: flask keys new")
        return keys


class Rate(ma.Field[str]):
    """A rate such as `60/minute`, or several rates separated by `;`. `none` becomes ""."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if value.strip().lower() == "none":
            return ""
        try:
            rates = limits.parse_many(value)
        except ValueError as exc:
            raise ValidationError("is not a rate. Use one such as 60/minute, or none for no limit.") from exc
        if not all(rate.amount for rate in rates):
            raise ValidationError("would reject every request. Use at least 1, or none for no limit.")
        return str(value)


class RateLimitStorage(ma.Field[str]):
    """The URI of the storage for rate limits, which is `memory://` or a Redis server.

    Error messages never quote a part of the URI, since an invalid port may be part of a password.
    """

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        scheme, separator, rest = value.strip().partition("://")
        uri = f"{scheme.lower()}{separator}{rest}"
        try:
            parts = urlsplit(uri)
            well_formed = parts.port is None or parts.hostname is not None
        except ValueError:
            well_formed = False
        if not well_formed or not re.fullmatch(r"memory://|rediss?://\S+", uri):
            raise ValidationError(
                "must be memory://, redis://HOST:PORT or rediss://HOST:PORT, with the special characters of "
                "a password percent-encoded."
            )
        return uri


class Origins(ma.Field[tuple[str, ...]]):
    """Comma-separated web origins (RFC 6454) without default ports, or `*` for all."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        origins = tuple(word.strip().lower() for word in value.split(",") if word.strip())
        if origins != ("*",) and not all(re.fullmatch(_ORIGIN, origin, re.ASCII) for origin in origins):
            raise ValidationError(
                "must be * or a comma-separated list of origins such as https://app.example.org, without "
                "a path."
            )
        return tuple(
            origin.removesuffix(_DEFAULT_PORTS.get(origin.partition(":")[0], "")) for origin in origins
        )


def parse_prefix(text: str) -> str | None:
    """Return the path of a mount point in the form of WSGI's `SCRIPT_NAME`, or None if `text` is invalid.

    The path starts with a slash and does not end with one. The root is "". Paths with `//`, dot segments,
    escapes or control characters are invalid, since they must not get into URLs.
    """
    text = text.strip(" \t")
    if text in ("", "/"):
        return ""
    return text.rstrip("/") if len(text) <= _MAX_PREFIX_LENGTH and _PREFIX.fullmatch(text) else None


class PathPrefix(ma.Field[str]):
    """The path of a mount point, such as `/images`. `/` becomes ""."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        prefix = parse_prefix(value)
        if prefix is None:
            raise ValidationError(
                f"must be a path such as /images, {_MAX_PREFIX_LENGTH} characters at most. Use ASCII "
                "letters, digits, '.', '_', '~' and '-' between single slashes."
            )
        return prefix


class Directory(ma.Field[Path]):
    """The path of a directory, which does not need to exist. `~` is the home directory."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Path:
        if "\0" in value:
            raise ValidationError("is not a path.")
        return Path(value).expanduser()


def integer(least: int, most: int) -> ma.Integer:
    """Return a field for a whole number from `least` to `most`."""
    return ma.Integer(
        validate=Range(least, most, error="must be from {min} to {max}."),
        error_messages={"invalid": f"is not a whole number. Use a number from {least} to {most}."},
    )


def bucket_name() -> ma.String:
    """Return a field for the name of a bucket. Compatible servers allow more names than S3 does."""
    return _text(
        r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}\Z",
        "is not a bucket name. Use letters, digits, '.' and '-', without spaces or slashes.",
    )


def region_name() -> ma.String:
    """Return a field for the name of a region of AWS or of a compatible server."""
    return _text(r"[A-Za-z0-9-]{1,64}\Z", "is not a region. Use one such as us-east-1.")


def header_value() -> ma.String:
    """Return a field for a secret that is sent in an HTTP header."""
    return _text(r"[!-~]+\Z", "must be visible ASCII characters without spaces. Copy the key again.")


def url() -> ma.String:
    """Return a field for an http(s) URL."""
    return ma.String(
        validate=URL(
            schemes={"http", "https"},
            require_tld=False,
            error="is not an http(s) URL. Use one such as https://s3.example.org.",
        )
    )


def base_url() -> ma.String:
    """Return a field for a public http(s) URL to which object keys are appended."""
    field = url()
    field.validators = [
        *field.validators,
        Regexp(r"[^?#]*\Z", error="must not contain ? or #, since object keys are appended to it."),
        Regexp(
            r"https?://[^/@]*(/|\Z)",
            re.IGNORECASE,
            error="must not contain a user or a password, since clients see this URL.",
        ),
    ]
    return field


def _text(pattern: str, error: str) -> ma.String:
    return ma.String(validate=Regexp(pattern, error=error))
