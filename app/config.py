"""The settings: one frozen `Config`, read from the environment, every problem reported at once."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from marshmallow import EXCLUDE, Schema, ValidationError, validates_schema
from marshmallow import fields as ma
from marshmallow.validate import URL, OneOf, Range, Regexp

from app.errors import ConfigError
from app.formats import FORMATS

KIB, MIB, GIB = 1024, 1024**2, 1024**3

READ_BY_BOTO3 = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
"""Names that boto3 reads itself; they belong into the same `.env` but never pass through our hands."""

_PLUG_IN = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
_UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_UNITS |= {"KIB": KIB, "MIB": MIB, "GIB": GIB, "TIB": 1024**4}


class _Size(ma.Field[int]):
    """A number of bytes such as `512MiB`, `10MB` or `1048576`, not below `least`."""

    def __init__(self, least: int = 1) -> None:
        super().__init__()
        self._least = least

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]{0,3})", value)
        if not match or match[2].upper() not in _UNITS:
            raise ValidationError("is not a size such as 512MiB, 10MB or 1048576")
        size = int(float(match[1]) * _UNITS[match[2].upper()])
        if size < self._least:
            raise ValidationError(f"must be at least {self._least} bytes")
        return size


class _Words(ma.Field[tuple[str, ...]]):
    """Words set apart by commas; with `choices`, only those."""

    def __init__(self, choices: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._choices = choices

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        words = tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))
        if self._choices and (not words or not set(words) <= set(self._choices)):
            raise ValidationError(f"must be a list out of {', '.join(self._choices)}")
        return words


class _Directory(ma.Field[Path]):
    """A directory's path; `~` is the home directory."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Path:
        if "\0" in value:
            raise ValidationError("is not a path")
        return Path(value).expanduser()


def _setting(parser: ma.Field[Any], default: Any, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parser": parser, "secret": secret})


def _one_of(*choices: str, plug_in: bool = False) -> ma.String:
    names = ", ".join(choices)
    if not plug_in:
        return ma.String(validate=OneOf(choices, error=f"must be one of {names}"))
    pattern = "|".join((*choices, _PLUG_IN))
    return ma.String(
        validate=Regexp(f"(?:{pattern})$", error=f"must be one of {names} or package.module:Class")
    )


def _number(least: int, most: int) -> ma.Integer:
    return ma.Integer(
        validate=Range(least, most, error="must lie between {min} and {max}"),
        error_messages={"invalid": "is not a whole number"},
    )


def _bucket() -> ma.String:
    return ma.String(validate=Regexp(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}\Z", error="is not a bucket's name"))


def _switch() -> ma.Boolean:
    return ma.Boolean(error_messages={"invalid": "must be true or false"})


def _url() -> ma.String:
    return ma.String(
        validate=URL(schemes={"http", "https"}, require_tld=False, error="is not an http(s) URL")
    )


@dataclass(frozen=True)
class Config:
    """What the operator decides; README.md explains each. A field's name is its variable's in lower case."""

    store: str = _setting(_one_of("local", "s3", plug_in=True), "local")
    local_store_dir: Path = _setting(_Directory(), Path("data/images"))
    s3_bucket: str = _setting(_bucket(), "")
    s3_acl: str = _setting(_one_of("auto", "public-read", "none"), "auto")
    s3_addressing_style: str = _setting(_one_of("auto", "virtual", "path"), "auto")
    aws_region: str = _setting(ma.String(), "")
    aws_endpoint_url_s3: str = _setting(_url(), "")

    image_urls: str = _setting(_one_of("auto", "s3", "server"), "auto")
    public_base_url: str = _setting(_url(), "")

    cache_dir: Path = _setting(_Directory(), Path("data/cache"))
    cache_max_bytes: int = _setting(_Size(least=384 * KIB), GIB)
    cache_ttl: int = _setting(_number(0, 31_536_000), 300)
    cache_stale_if_error: int = _setting(_number(0, 31_536_000), 86_400)
    cache_negative_ttl: int = _setting(_number(0, 3_600), 5)

    max_upload_bytes: int = _setting(_Size(), 10 * MIB)
    max_image_pixels: int = _setting(_number(1, 1_000_000_000), 50_000_000)
    max_image_frames: int = _setting(_number(1, 100_000), 1_000)
    allowed_formats: tuple[str, ...] = _setting(_Words(tuple(FORMATS)), tuple(FORMATS))
    strip_metadata: bool = _setting(_switch(), True)

    api_keys: tuple[str, ...] = _setting(_Words(), (), secret=True)

    generator: str = _setting(_one_of("builtin", plug_in=True), "builtin")
    generator_timeout: int = _setting(_number(1, 3600), 120)

    host: str = _setting(ma.String(), "127.0.0.1")
    port: int = _setting(_number(0, 65535), 8000)
    web_concurrency: int = _setting(_number(1, 256), os.cpu_count() or 1)
    threads: int = _setting(_number(1, 512), 8)
    pin_workers: bool = _setting(_switch(), True)
    log_level: str = _setting(_one_of("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings from `environ`; an empty variable counts as not set.

        Raises `ConfigError` that names every wrong setting with its value, secrets masked.
        """
        given = {f.name: environ[f.name.upper()] for f in fields(cls) if environ.get(f.name.upper())}
        given.setdefault("store", "s3" if given.get("s3_bucket") else "local")
        try:
            return cls(**_schema(cls).load(given))
        except ValidationError as exc:
            raise ConfigError(_report(cls, given, exc.messages_dict)) from exc


def _rules(schema: Schema, values: Mapping[str, Any], **kwargs: Any) -> None:
    """The rules that span settings; marshmallow reports them beside those of each setting."""
    problems = {}
    if values.get("store") == "s3" and not values.get("s3_bucket"):
        problems["store"] = ["needs S3_BUCKET, the name of the bucket"]
    if values.get("store") == "local" and values.get("image_urls") == "s3":
        problems["image_urls"] = ["needs an S3 store: set S3_BUCKET, or IMAGE_URLS=auto"]
    if values.get("store") == "local" and _overlap(values):
        problems["cache_dir"] = ["must not lie in LOCAL_STORE_DIR, nor the other way round"]
    if problems:
        raise ValidationError(problems)


def _overlap(values: Mapping[str, Any]) -> bool:
    """Whether one directory lies in the other: the cache would evict what the store keeps."""
    cache, store = (
        values.get(field.name, field.default).absolute()
        for field in fields(Config)
        if field.name in ("cache_dir", "local_store_dir")
    )
    return bool(cache.is_relative_to(store) or store.is_relative_to(cache))


def _schema(cls: type[Config]) -> Schema:
    parsers: dict[str, Any] = {f.name: f.metadata["parser"] for f in fields(cls)}
    rules = {"check_together": validates_schema(skip_on_field_errors=False)(_rules)}
    return Schema.from_dict(parsers | rules)(unknown=EXCLUDE)


def _report(cls: type[Config], given: Mapping[str, str], problems: Mapping[str, list[str]]) -> str:
    secret = {f.name for f in fields(cls) if f.metadata["secret"]}
    lines = (
        f"  {name.upper()}={'***' if name in secret else given[name]}: {' '.join(texts)}"
        for name, texts in problems.items()
    )
    return "\n".join(("These settings can't be used:", *lines))
