"""The settings: one frozen `Config`, read from the environment, every problem reported at once."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import combinations
from pathlib import Path
from typing import Any, Self

from marshmallow import EXCLUDE, Schema, ValidationError, validates_schema
from marshmallow import fields as ma

from app.config.api_keys import ApiKey
from app.config.fields import (
    GIB,
    KIB,
    MIB,
    Counters,
    Directory,
    Duration,
    Host,
    HostNames,
    Keys,
    OneOf,
    Origins,
    PathPrefix,
    Rate,
    Size,
    Switch,
    Words,
    base_url,
    bucket,
    header_word,
    number,
    region,
    url,
)
from app.core.errors import ConfigError
from app.core.objects import FORMATS
from app.core.system import usable_cores

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_USER_IN_URL = re.compile(r"(?<=//).*(?=@)", re.DOTALL)


def _cores() -> int:
    """How many cores this process may run on; a quota of CPU time says nothing of that."""
    return len(usable_cores()) or os.cpu_count() or 1


def _setting(parser: ma.Field[Any], default: Any, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parser": parser, "secret": secret})


@dataclass(frozen=True)
class Config:
    """What the operator decides; README.md explains each. A field's name is its variable's in lower case."""

    store: str = _setting(OneOf("local", "s3", plug_in=True), "local")
    local_store_dir: Path = _setting(Directory(), Path("data/images"))
    s3_bucket: str = _setting(bucket(), "")
    s3_acl: str = _setting(OneOf("auto", "public-read", "none"), "auto")
    s3_sse: str = _setting(OneOf("none", "AES256", "aws:kms"), "none")
    s3_sse_kms_key_id: str = _setting(ma.String(), "")
    s3_addressing_style: str = _setting(OneOf("auto", "virtual", "path"), "auto")
    aws_region: str = _setting(region(), "")
    aws_endpoint_url_s3: str = _setting(url(), "")

    image_urls: str = _setting(OneOf("auto", "s3", "server", "presigned"), "auto")
    presigned_expiry: int = _setting(Duration(60, 604_800), 3600)
    public_base_url: str = _setting(base_url(), "")

    cache_dir: Path = _setting(Directory(), Path("data/cache"))
    cache_max_bytes: int = _setting(Size(least=384 * KIB), GIB)
    cache_max_object_bytes: int = _setting(Size(), GIB)
    cache_ttl: int = _setting(Duration(0, 31_536_000), 300)
    cache_stale_if_error: int = _setting(Duration(0, 31_536_000), 86_400)
    cache_negative_ttl: int = _setting(Duration(0, 3_600), 5)

    max_upload_bytes: int = _setting(Size(), 10 * MIB)
    max_image_pixels: int = _setting(number(1, 1_000_000_000), 50_000_000)
    max_image_frames: int = _setting(number(1, 100_000), 1_000)
    allowed_formats: tuple[str, ...] = _setting(Words(tuple(FORMATS)), tuple(FORMATS))
    strip_metadata: bool = _setting(Switch(), True)

    decode_concurrency: int = _setting(number(1, 64), 1)

    api_keys: tuple[ApiKey, ...] = _setting(Keys(), (), secret=True)
    rate_limit_upload: str = _setting(Rate(), "")
    rate_limit_generate: str = _setting(Rate(), "60/minute")
    ratelimit_storage_uri: str = _setting(Counters(), "memory://", secret=True)
    trusted_proxies: int = _setting(number(0, 10), 0)
    trusted_hosts: tuple[str, ...] = _setting(HostNames(), ())
    script_name: str = _setting(PathPrefix(), "")
    cors_origins: tuple[str, ...] = _setting(Origins(), ())

    generator: str = _setting(OneOf("builtin", "bedrock", "openai", plug_in=True), "builtin")
    generator_model: str = _setting(ma.String(), "")
    generator_timeout: int = _setting(Duration(1, 3600), 120)
    openai_api_key: str = _setting(header_word(), "", secret=True)
    openai_base_url: str = _setting(url(), "")
    bedrock_region: str = _setting(region(), "us-west-2")
    generate_concurrency: int = _setting(number(1, 64), 8)
    generate_reuse: bool = _setting(Switch(), False)
    keep_prompts: bool = _setting(Switch(), True)
    state_dir: Path = _setting(Directory(), Path("data/state"))

    host: str = _setting(Host(), "127.0.0.1")
    port: int = _setting(number(0, 65535), 8000)
    web_concurrency: int = _setting(number(1, 256), _cores())
    threads: int = _setting(number(1, 512), 8)
    pin_workers: bool = _setting(Switch(), True)
    log_level: str = _setting(OneOf("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")
    log_format: str = _setting(OneOf("text", "json"), "text")
    access_log: bool = _setting(Switch(), True)

    @property
    def object_acl(self) -> str:
        """`s3_acl`, but `none` instead of `auto` if clients are told private URLs only.

        With an ACL anybody who has such a URL could read the image at S3 without what makes the URL private.
        """
        if self.s3_acl == "auto" and self.image_urls in ("server", "presigned"):
            return "none"
        return self.s3_acl

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings from `environ`; surrounding white space does not count, and an empty variable
        counts as not set.

        Raises `ConfigError` that names every wrong setting with its value, secrets masked.
        """
        values = {f.name: environ.get(f.name.upper(), "").strip() for f in fields(cls)}
        given = {name: value for name, value in values.items() if value}
        given.setdefault("store", "s3" if given.get("s3_bucket") else "local")
        try:
            return cls(**_schema(cls).load(given))
        except ValidationError as exc:
            raise ConfigError(_report(cls, given, exc.messages_dict)) from exc


@validates_schema(skip_on_field_errors=False, pass_original=True)
def _rules(schema: Schema, values: Mapping[str, Any], given: Mapping[str, str], **kwargs: Any) -> None:
    """The rules that span settings; marshmallow reports them beside those of each setting."""
    problems = {}
    if values.get("store") == "s3" and not given.get("s3_bucket"):
        problems["store"] = ["needs S3_BUCKET, the name of the bucket"]
    if values.get("store") == "local" and values.get("image_urls") in ("s3", "presigned"):
        problems["image_urls"] = ["needs an S3 store: set S3_BUCKET, or IMAGE_URLS=auto"]
    if values.get("public_base_url") and values.get("image_urls") == "presigned":
        problems["public_base_url"] = ["can't be signed: leave it out, or IMAGE_URLS=presigned"]
    if values.get("s3_sse_kms_key_id") and values.get("s3_sse") != "aws:kms":
        problems["s3_sse_kms_key_id"] = ["needs S3_SSE=aws:kms"]
    problems |= _directory_rules(values) | _generator_rules(values) | _unprintable(given)
    if problems:
        raise ValidationError(problems)


def _unprintable(given: Mapping[str, str]) -> dict[str, list[str]]:
    """Name what holds a control character. Lists may have several lines, and their words are looked at."""
    lists = {f.name for f in fields(Config) if isinstance(f.metadata["parser"], Words | Keys | Origins)}
    return {
        name: ["holds a line break or another control character"]
        for name, value in given.items()
        if name not in lists and _CONTROL.search(value)
    }


def _generator_rules(values: Mapping[str, Any]) -> dict[str, list[str]]:
    generator = values.get("generator")
    if generator in ("bedrock", "openai") and not values.get("generator_model"):
        return {"generator": ["needs GENERATOR_MODEL, the model's id"]}
    if generator == "openai" and not (values.get("openai_api_key") or values.get("openai_base_url")):
        return {"generator": ["needs OPENAI_API_KEY, or OPENAI_BASE_URL for a server that takes no key"]}
    return {}


def _directory_rules(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """No directory lies in another: the cache would evict what is kept there."""
    names = ["local_store_dir"] if values.get("store") == "local" else []
    names += ["cache_dir", "state_dir"]
    defaults = {field.name: field.default for field in fields(Config)}
    places = {name: _place(values.get(name, defaults[name])) for name in names}
    problems: dict[str, list[str]] = {}
    for other, name in combinations(names, 2):
        if places[name].is_relative_to(places[other]) or places[other].is_relative_to(places[name]):
            problems.setdefault(name, []).append(other.upper())
    return {
        name: [f"must not lie in {' or '.join(others)}, nor the other way round"]
        for name, others in problems.items()
    }


def _place(directory: Path) -> Path:
    """Where it lies on disk; unlike `Path.resolve`, this bears symbolic links that go round in circles."""
    return Path(os.path.realpath(directory))


def _schema(cls: type[Config]) -> Schema:
    parsers: dict[str, Any] = {f.name: f.metadata["parser"] for f in fields(cls)}
    return Schema.from_dict(parsers | {"check_together": _rules})(unknown=EXCLUDE)


def _report(cls: type[Config], given: Mapping[str, object], problems: Mapping[str, list[str]]) -> str:
    secret = {f.name for f in fields(cls) if f.metadata["secret"]}
    given = {**{f.name: f.default for f in fields(cls)}, **given}
    lines = (
        f"  {name.upper()}={'***' if name in secret else _without_user(given[name])}: {' '.join(texts)}"
        for name, texts in problems.items()
    )
    return "\n".join(("These settings can't be used:", *lines))


def _without_user(value: object) -> str:
    """Return a value that was wrong, without user and password if it is a URL."""
    return _USER_IN_URL.sub("***", str(value))
