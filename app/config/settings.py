"""The settings, which are read from the environment into one frozen `Config`.

All problems with the settings are reported in a single error.
"""

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
    ApiKeys,
    ByteSize,
    Choice,
    Directory,
    Duration,
    Host,
    HostNames,
    Origins,
    PathPrefix,
    Rate,
    RateLimitStorage,
    Switch,
    WordList,
    base_url,
    bucket_name,
    header_value,
    integer,
    region_name,
    url,
)
from app.config.variant_fields import (
    DEFAULT_PRESETS,
    DEFAULT_WIDTHS,
    Presets,
    SigningKeys,
    VariantPresets,
    VariantWidths,
)
from app.core.errors import ConfigError
from app.core.objects import FORMATS
from app.core.system import usable_cores

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_USER_IN_URL = re.compile(r"(?<=//).*(?=@)", re.DOTALL)


def _setting(parser: ma.Field[Any], default: Any, *, secret: bool = False) -> Any:
    """Return a dataclass field with `default`. `parser` reads its value from the environment.

    The value of a `secret` appears in no repr and no error message.
    """
    return field(default=default, repr=not secret, metadata={"parser": parser, "secret": secret})


@dataclass(frozen=True)
class Config:
    """The settings of one server. docs/settings.md explains each of them.

    The name of a field is the name of its environment variable in lower case.
    """

    store: str = _setting(Choice("local", "s3", custom_class=True), "local")
    local_store_dir: Path = _setting(Directory(), Path("data/images"))
    s3_bucket: str = _setting(bucket_name(), "")
    s3_acl: str = _setting(Choice("auto", "public-read", "none"), "auto")
    s3_sse: str = _setting(Choice("none", "AES256", "aws:kms"), "none")
    s3_sse_kms_key_id: str = _setting(ma.String(), "")
    s3_addressing_style: str = _setting(Choice("auto", "virtual", "path"), "auto")
    aws_region: str = _setting(region_name(), "")
    aws_endpoint_url_s3: str = _setting(url(), "")

    image_urls: str = _setting(Choice("auto", "s3", "server", "presigned"), "auto")
    presigned_expiry: int = _setting(Duration(60, 604_800), 3600)
    public_base_url: str = _setting(base_url(), "")

    cache_dir: Path = _setting(Directory(), Path("data/cache"))
    cache_max_bytes: int = _setting(ByteSize(least=384 * KIB), GIB)
    cache_max_object_bytes: int = _setting(ByteSize(), GIB)
    cache_ttl: int = _setting(Duration(0, 31_536_000), 300)
    cache_stale_if_error: int = _setting(Duration(0, 31_536_000), 86_400)
    cache_negative_ttl: int = _setting(Duration(0, 3_600), 5)

    max_upload_bytes: int = _setting(ByteSize(), 10 * MIB)
    max_image_pixels: int = _setting(integer(1, 1_000_000_000), 50_000_000)
    max_image_frames: int = _setting(integer(1, 100_000), 1_000)
    allowed_formats: tuple[str, ...] = _setting(WordList(tuple(FORMATS)), tuple(FORMATS))
    strip_metadata: bool = _setting(Switch(), True)

    decode_concurrency: int = _setting(integer(1, 64), 1)

    variants: str = _setting(Choice("on", "presets", "off"), "on")
    variant_widths: tuple[int, ...] = _setting(VariantWidths(), DEFAULT_WIDTHS)
    variant_presets: Presets = _setting(VariantPresets(), DEFAULT_PRESETS)
    variant_max_pixels: int = _setting(integer(1, 1_000_000_000), 25_000_000)
    variant_concurrency: int = _setting(integer(1, 64), 1)
    variants_in_store: bool = _setting(Switch(), False)
    variants_base_url: str = _setting(base_url(), "")
    signing_keys: tuple[str, ...] = _setting(SigningKeys(), (), secret=True)

    api_keys: tuple[ApiKey, ...] = _setting(ApiKeys(), (), secret=True)
    rate_limit_upload: str = _setting(Rate(), "")
    rate_limit_generate: str = _setting(Rate(), "60/minute")
    ratelimit_storage_uri: str = _setting(RateLimitStorage(), "memory://", secret=True)
    trusted_proxies: int = _setting(integer(0, 10), 0)
    trusted_hosts: tuple[str, ...] = _setting(HostNames(), ())
    script_name: str = _setting(PathPrefix(), "")
    cors_origins: tuple[str, ...] = _setting(Origins(), ())

    generator: str = _setting(Choice("builtin", "bedrock", "openai", custom_class=True), "builtin")
    generator_model: str = _setting(ma.String(), "")
    generator_timeout: int = _setting(Duration(1, 3600), 120)
    openai_api_key: str = _setting(header_value(), "", secret=True)
    openai_base_url: str = _setting(url(), "")
    bedrock_region: str = _setting(region_name(), "us-west-2")
    generate_concurrency: int = _setting(integer(1, 64), 8)
    keep_prompts: bool = _setting(Switch(), True)
    state_dir: Path = _setting(Directory(), Path("data/state"))

    host: str = _setting(Host(), "127.0.0.1")
    port: int = _setting(integer(0, 65535), 8000)
    web_concurrency: int = _setting(integer(1, 256), len(usable_cores()) or os.cpu_count() or 1)
    threads: int = _setting(integer(1, 512), 8)
    pin_workers: bool = _setting(Switch(), True)
    log_level: str = _setting(Choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")
    log_format: str = _setting(Choice("text", "json"), "text")
    access_log: bool = _setting(Switch(), True)

    @property
    def object_acl(self) -> str:
        """The ACL of new objects. `auto` becomes `none` if clients get no public URLs of the store.

        If the object were public, anyone with its presigned URL could drop the signature and still read it
        after the URL expired.
        """
        if self.s3_acl == "auto" and self.image_urls in ("server", "presigned"):
            return "none"
        return self.s3_acl

    @property
    def variants_base(self) -> str:
        """The URL in front of the keys in the URLs of variants; empty if these are paths of this server.

        Only this server can make variants. So `PUBLIC_BASE_URL` is used only if it must lead to this server,
        and not if it may lead to the bucket.
        """
        leads_here = self.store == "local" or self.image_urls == "server"
        return self.variants_base_url or (self.public_base_url if leads_here else "")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Return the settings in `environ`. Settings that are missing or empty have their defaults.

        White space around a value is ignored.

        Raises `ConfigError` if a setting is invalid. The message lists every invalid setting with its value,
        but masks secrets.
        """
        stripped = {f.name: environ.get(f.name.upper(), "").strip() for f in fields(cls)}
        given = {name: value for name, value in stripped.items() if value}
        given.setdefault("store", "s3" if given.get("s3_bucket") else "local")
        parsers: dict[str, Any] = {f.name: f.metadata["parser"] for f in fields(cls)}
        schema = Schema.from_dict(parsers | {"check_combinations": _check_combinations})(unknown=EXCLUDE)
        try:
            return cls(**schema.load(given))
        except ValidationError as exc:
            raise ConfigError(_report(cls, given, exc.messages_dict)) from exc


@validates_schema(skip_on_field_errors=False, pass_original=True)
def _check_combinations(
    schema: Schema, values: Mapping[str, Any], given: Mapping[str, str], **kwargs: Any
) -> None:
    """Raise `ValidationError` if settings contradict each other, or if one requires another that is missing.

    This is called even if single settings are invalid, so that all problems are reported together. `values`
    contains the settings that could be parsed, and `given` contains the text of all settings that are set.
    """
    problems: dict[str, list[str]] = {}
    if values.get("s3_sse_kms_key_id") and values.get("s3_sse") != "aws:kms":
        problems["s3_sse_kms_key_id"] = ["needs S3_SSE=aws:kms."]
    if values.get("public_base_url") and values.get("image_urls") == "presigned":
        problems["public_base_url"] = ["can't be presigned. Unset it, or use a different IMAGE_URLS."]
    if values.get("store") == "local" and values.get("image_urls") in ("s3", "presigned"):
        problems["image_urls"] = ["needs an S3 store. Set S3_BUCKET, or IMAGE_URLS=auto."]
    if values.get("store") == "local" and values.get("variants_in_store"):
        problems["variants_in_store"] = ["needs an S3 store. Set S3_BUCKET, or VARIANTS_IN_STORE=false."]
    if values.get("store") == "s3" and not given.get("s3_bucket"):
        problems["store"] = ["needs S3_BUCKET, the name of the bucket."]
    problems |= _directory_problems(values) | _generator_problems(values) | _control_characters(given)
    if problems:
        raise ValidationError(problems)


def _control_characters(given: Mapping[str, str]) -> dict[str, list[str]]:
    """Return a dict with a problem for each setting whose value contains a control character.

    Settings that are lists are excluded, since they may contain line breaks. Their fields check each word.
    """
    list_fields = (WordList, ApiKeys, Origins, SigningKeys, VariantWidths)
    lists = {f.name for f in fields(Config) if isinstance(f.metadata["parser"], list_fields)}
    return {
        name: ["contains a line break or another control character. Remove it."]
        for name, value in given.items()
        if name not in lists and _CONTROL.search(value)
    }


def _generator_problems(values: Mapping[str, Any]) -> dict[str, list[str]]:
    generator = values.get("generator")
    if generator in ("bedrock", "openai") and not values.get("generator_model"):
        return {"generator": ["needs GENERATOR_MODEL, the ID of the model."]}
    if generator == "openai" and not (values.get("openai_api_key") or values.get("openai_base_url")):
        return {"generator": ["needs OPENAI_API_KEY, or the OPENAI_BASE_URL of a server that needs no key."]}
    return {}


def _directory_problems(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return a dict with a problem for each directory setting that names a directory inside another one.

    If two of these directories overlapped, the cache would evict files that are not its own. The paths are
    compared after symbolic links have been resolved.
    """
    names = ["local_store_dir"] if values.get("store") == "local" else []
    names += ["cache_dir", "state_dir"]
    defaults = {f.name: f.default for f in fields(Config)}
    # Unlike Path.resolve(), realpath() accepts symbolic links that form a loop.
    paths = {name: Path(os.path.realpath(values.get(name, defaults[name]))) for name in names}
    overlaps: dict[str, list[str]] = {}
    for other, name in combinations(names, 2):
        if paths[name].is_relative_to(paths[other]) or paths[other].is_relative_to(paths[name]):
            overlaps.setdefault(name, []).append(other.upper())
    return {
        name: [f"must not be inside {' or '.join(others)}, nor contain it. Use separate directories."]
        for name, others in overlaps.items()
    }


def _report(cls: type[Config], given: Mapping[str, str], problems: Mapping[str, list[str]]) -> str:
    """Return a message with a line for each invalid setting. Secrets are masked, including logins in URLs."""
    lines = ["These settings can't be used:"]
    for setting in fields(cls):
        if texts := problems.get(setting.name):
            value = given.get(setting.name, setting.default)
            shown = "***" if setting.metadata["secret"] else _USER_IN_URL.sub("***", str(value))
            lines.append(f"  {setting.name.upper()}={shown}: {' '.join(texts)}")
    return "\n".join(lines)
