"""Tests of the settings, and of .env.example and the documentation, which must name the same settings."""

import dataclasses
import re
from pathlib import Path

import pytest

from app.config.settings import Config
from app.core.errors import ConfigError
from app.core.variant_specs import VariantSpec

ROOT = Path(__file__).parents[2]
READ_BY_BOTO3 = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
}
"""Variables in `.env` that boto3 reads, but not `Config`."""

NAMES = {field.name.upper() for field in dataclasses.fields(Config)}


def test_every_setting_has_a_default() -> None:
    config = Config.from_env({"PATH": "/bin", "UNRELATED": "x"})
    assert (config.store, config.port, config.cache_max_bytes) == ("local", 8000, 1024**3)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Config.from_env({"PORT": "", "S3_BUCKET": ""}) == Config.from_env({})


def test_the_store_is_s3_if_a_bucket_is_set() -> None:
    assert Config.from_env({"S3_BUCKET": "cats"}).store == "s3"
    assert Config.from_env({"S3_BUCKET": "cats", "STORE": "local"}).store == "local"


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("10MB", 10**7), ("512MiB", 512 * 1024**2), ("1.5 GiB", 3 * 512 * 1024**2), ("4kb", 4000)],
)
def test_sizes_are_bytes_or_have_a_unit(text: str, size: int) -> None:
    assert Config.from_env({"MAX_UPLOAD_BYTES": text}).max_upload_bytes == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("300", 300), ("5m", 300), ("5M", 300), ("300s", 300), ("5 minutes", 300), ("2000ms", 2)],
        *[("1.5h", 5400), ("1 hour", 3600), ("2d", 172_800), (" 7 sec ", 7), ("0", 0), ("0.5 min", 30)],
    ],
)
def test_durations_are_seconds_or_have_a_unit(text: str, seconds: int) -> None:
    assert Config.from_env({"CACHE_TTL": text}).cache_ttl == seconds


@pytest.mark.parametrize(
    "name",
    ["PRESIGNED_EXPIRY", "CACHE_TTL", "CACHE_STALE_IF_ERROR", "CACHE_NEGATIVE_TTL", "GENERATOR_TIMEOUT"],
)
def test_every_duration_accepts_units(name: str) -> None:
    config = Config.from_env({name: "2m"})
    assert getattr(config, name.lower()) == 120


@pytest.mark.parametrize(
    "text", ["5x", "m", "1h30m", "1.5", "500ms", "-1s", "5e1", "\u0665m", "400d", "1..5m"]
)
def test_a_malformed_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"CACHE_TTL={text}: ")):
        Config.from_env({"CACHE_TTL": text})


WORDS = [
    *[("LOG_LEVEL", "info", "INFO"), ("LOG_LEVEL", "Warning", "WARNING"), ("LOG_FORMAT", "JSON", "json")],
    *[("S3_ACL", "Public-Read", "public-read"), ("S3_ADDRESSING_STYLE", "PATH", "path")],
    *[("S3_SSE", "aes256", "AES256"), ("S3_SSE", "AWS:KMS", "aws:kms"), ("S3_SSE", "None", "none")],
    *[("VARIANTS", "Presets", "presets"), ("VARIANTS", "OFF", "off"), ("VARIANTS_IN_STORE", "No", False)],
    *[("VARIANT_PRESETS", "a=W9,H08,Cover", (("a", VariantSpec(9, 8, "cover")),))],
    *[("IMAGE_URLS", "Server", "server"), ("STORE", "LOCAL", "local"), ("GENERATOR", "BuiltIn", "builtin")],
    *[("STRIP_METADATA", word, True) for word in ("TRUE", "tRue", "Yes", "oN", "1", " true ")],
    *[("ACCESS_LOG", word, False) for word in ("FALSE", "fAlse", "No", "oFF", "0")],
    *[("ALLOWED_FORMATS", "PNG, Jpeg", ("png", "jpeg"))],
    *[("RATE_LIMIT_UPLOAD", "NONE", ""), ("RATE_LIMIT_UPLOAD", "5/MINUTE", "5/MINUTE")],
    *[
        ("RATELIMIT_STORAGE_URI", "MEMORY://", "memory://"),
        ("RATELIMIT_STORAGE_URI", "Redis://H:1", "redis://H:1"),
    ],
    *[("CORS_ORIGINS", "HTTPS://App.Example.org", ("https://app.example.org",))],
    *[("CACHE_MAX_BYTES", "1gib", 1024**3), ("OPENAI_BASE_URL", "HTTP://x/v1", "HTTP://x/v1")],
    *[("HOST", "[::1]", "::1"), ("HOST", "::", "::"), ("HOST", "LocalHost", "LocalHost")],
]


@pytest.mark.parametrize(("name", "text", "value"), WORDS)
def test_words_are_case_insensitive(name: str, text: str, value: object) -> None:
    assert getattr(Config.from_env({name: text}), name.lower()) == value


def test_a_custom_class_keeps_its_case() -> None:
    assert Config.from_env({"GENERATOR": "MyPackage.models:Mine"}).generator == "MyPackage.models:Mine"


@pytest.mark.parametrize("host", ["0.0.0.0:8000", "[::1]:8000", "unix:/run/x.sock", "http://x", "a b"])
def test_a_malformed_host_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"HOST={host}: is not an IP address or a host name")):
        Config.from_env({"HOST": host})


def test_a_cache_too_small_for_its_index_is_refused() -> None:
    with pytest.raises(ConfigError, match="CACHE_MAX_BYTES=100KiB: must be at least 393216 bytes"):
        Config.from_env({"CACHE_MAX_BYTES": "100KiB"})


@pytest.mark.parametrize(
    ("cache", "store"),
    [("data", "data"), ("data/images/cache", "data/images"), ("/x", "/x/y"), ("./a", "a/b")],
)
def test_the_cache_must_not_overlap_the_local_store(cache: str, store: str) -> None:
    with pytest.raises(ConfigError, match="CACHE_DIR="):
        Config.from_env({"CACHE_DIR": cache, "LOCAL_STORE_DIR": store})
    over_s3 = {"CACHE_DIR": cache, "LOCAL_STORE_DIR": store, "STATE_DIR": "/elsewhere", "S3_BUCKET": "cats"}
    assert Config.from_env(over_s3)


@pytest.mark.parametrize(
    ("state", "cache"), [("/x", "/x"), ("/x/y", "/x"), ("/x", "/x/y"), ("", "data"), ("data/cache/a", "")]
)
def test_the_state_directory_must_not_overlap_the_cache(state: str, cache: str) -> None:
    problem = f"STATE_DIR={state or 'data/state'}: must not be inside CACHE_DIR,"
    with pytest.raises(ConfigError, match=problem):
        Config.from_env({"STATE_DIR": state, "CACHE_DIR": cache, "LOCAL_STORE_DIR": "/elsewhere"})


@pytest.mark.parametrize(
    ("state", "store"), [("/x", "/x"), ("/x/y", "/x"), ("/x", "/x/y"), ("", "data"), ("data/images/a", "")]
)
def test_the_state_directory_must_not_overlap_the_local_store(state: str, store: str) -> None:
    given = {"STATE_DIR": state, "CACHE_DIR": "/elsewhere", "LOCAL_STORE_DIR": store}
    problem = f"STATE_DIR={state or 'data/state'}: must not be inside LOCAL_STORE_DIR,"
    with pytest.raises(ConfigError, match=problem):
        Config.from_env(given)
    assert Config.from_env({**given, "S3_BUCKET": "cats"})


def test_directories_are_compared_by_their_real_paths(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to("images")
    (tmp_path / "circle").symlink_to("circle")
    store = str(tmp_path / "images")
    for cache in ("images/../images", "nowhere/../images/x", "link", "link/cache", "link/.."):
        with pytest.raises(ConfigError, match="must not be inside LOCAL_STORE_DIR"):
            Config.from_env({"CACHE_DIR": f"{tmp_path}/{cache}", "LOCAL_STORE_DIR": store})
    for cache in ("cache", "images/../cache", "imagesx", "circle"):
        assert Config.from_env({"CACHE_DIR": f"{tmp_path}/{cache}", "LOCAL_STORE_DIR": store})


def test_a_directory_that_overlaps_two_others_is_reported_once() -> None:
    same = {"CACHE_DIR": "/x", "LOCAL_STORE_DIR": "/x", "STATE_DIR": "/x"}
    with pytest.raises(ConfigError) as caught:
        Config.from_env(same)
    assert str(caught.value).splitlines()[1:] == [
        "  CACHE_DIR=/x: must not be inside LOCAL_STORE_DIR, nor contain it. Use separate directories.",
        "  STATE_DIR=/x: must not be inside LOCAL_STORE_DIR or CACHE_DIR, nor contain it. Use separate "
        "directories.",
    ]


def test_lists_have_no_spaces_empty_words_or_duplicates() -> None:
    config = Config.from_env({"TRUSTED_HOSTS": " a, b ,,a", "ALLOWED_FORMATS": "png,webp"})
    assert (config.trusted_hosts, config.allowed_formats) == (("a", "b"), ("png", "webp"))


WRONG = {
    "STORE": "nowhere",
    "S3_ACL": "public",
    "S3_ADDRESSING_STYLE": "x",
    "S3_SSE": "rot13",
    "PRESIGNED_EXPIRY": "604801",
    "AWS_ENDPOINT_URL_S3": "localhost:9000",
    "IMAGE_URLS": "all",
    "PUBLIC_BASE_URL": "ftp://x",
    "CACHE_DIR": "a\0b",
    "CACHE_MAX_BYTES": "12QiB",
    "S3_BUCKET": "a b/c",
    "CACHE_TTL": "-1",
    "MAX_UPLOAD_BYTES": "0",
    "MAX_IMAGE_PIXELS": "many",
    "ALLOWED_FORMATS": "png,bmp",
    "STRIP_METADATA": "maybe",
    "DECODE_CONCURRENCY": "0",
    "VARIANTS": "some",
    "VARIANT_WIDTHS": "wide",
    "VARIANT_PRESETS": "thumb",
    "VARIANT_MAX_PIXELS": "0",
    "VARIANT_CONCURRENCY": "0",
    "VARIANTS_IN_STORE": "maybe",
    "VARIANTS_BASE_URL": "cdn.example.org",
    "RATE_LIMIT_UPLOAD": "often",
    "RATE_LIMIT_GENERATE": "-1/minute",
    "TRUSTED_PROXIES": "10.0.0.1",
    "CORS_ORIGINS": "https://app.example.org/page",
    "GENERATOR": "magic",
    "PORT": "70000",
    "WEB_CONCURRENCY": "0",
    "LOG_LEVEL": "LOUD",
}


def test_all_invalid_settings_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env(WRONG)
    message = str(caught.value)
    for name, value in WRONG.items():
        assert f"{name}={value}: " in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("RATE_LIMIT_UPLOAD", value) for value in ("0/minute", "0 per hour", "9/day;0/second")],
        *[("TRUSTED_HOSTS", value) for value in ("a b", "*", "a.example,*.b.example", "http://a", "a:80")],
        *[("PUBLIC_BASE_URL", f"https://cdn.example{end}") for end in ("?a=b", "/x#top", "/?")],
        ("VARIANTS_BASE_URL", "https://cdn.example/?a=b"),
    ],
)
def test_a_value_that_could_never_work_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env({name: value})
    assert f"{name}={value}: " in str(caught.value)


def test_the_default_widths_are_sorted_and_without_duplicates() -> None:
    widths = Config().variant_widths
    assert Config.from_env({"VARIANT_WIDTHS": ",".join(map(str, reversed(widths)))}).variant_widths == widths


@pytest.mark.parametrize(
    ("text", "widths"), [("640", (640,)), (" 640, 16,,\n640 ,016", (16, 640)), ("1,16383", (1, 16_383))]
)
def test_variant_widths(text: str, widths: tuple[int, ...]) -> None:
    assert Config.from_env({"VARIANT_WIDTHS": text}).variant_widths == widths


@pytest.mark.parametrize(
    "text",
    [",", "0", "16384", "-1", "w640", "1.5", "640;320", "٣", "9" * 5000, ",".join(map(str, range(1, 66)))],
)
def test_invalid_variant_widths_are_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match=re.escape(f"VARIANT_WIDTHS={text}: must be a comma-separated list")
    ):
        Config.from_env({"VARIANT_WIDTHS": text})


def test_presets_replace_the_default_ones() -> None:
    assert dict(Config().variant_presets) == {
        "thumb": VariantSpec(320, 320, "cover", "smart"),
        "card": VariantSpec(640),
    }
    config = Config.from_env(
        {"VARIANT_PRESETS": " og_image = w1200,h630,pad,bg112233 ;; full-size=contain; "}
    )
    assert config.variant_presets == (
        ("og_image", VariantSpec(1200, 630, "pad", background="112233")),
        ("full-size", VariantSpec()),
    )


PRESET_PROBLEMS = [
    *[
        (name + "=w9", "can't have a preset with the name")
        for name in ("", "Thumb", "1x", "a.b", "a b", "é", "x" * 33)
    ],
    *[
        (name + "=w9", "can't have a preset")
        for name in ("w640", "h9", "q80", "still", "smart", "cover", "north")
    ],
    *[
        (name + "=w9", "can't have a preset")
        for name in ("w99999", "q99", "bgaabbcc", "fp0", "info", "srcset")
    ],
    *[(f"a={words}", "has the invalid preset a. The variant ") for words in ("", "w0", "w9,w9", "q99")],
    ("a=w9;b=w9,w9", "has the invalid preset b. The variant "),
    ("a=w9;a=w8", "contains the same name twice"),
    ("thumb", "but 'thumb' has no '='"),
    (";", "must contain at least one preset"),
    (";".join(f"a{number}=w9" for number in range(65)), "at most 64"),
]


@pytest.mark.parametrize(("text", "problem"), PRESET_PROBLEMS)
def test_an_invalid_preset_is_refused_by_name(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env({"VARIANT_PRESETS": text})
    assert f"VARIANT_PRESETS={text}: " in str(caught.value)
    assert problem in str(caught.value)


@pytest.mark.parametrize("separator", [",", " ", ", ", "\n", " ,, "])
def test_signing_keys_are_separated_by_commas_or_white_space(separator: str) -> None:
    first, second = "0123456789abcdef", "f" * 64
    config = Config.from_env({"SIGNING_KEYS": separator.join((first, second, first))})
    assert config.signing_keys == (first, second)
    assert first not in repr(config)


@pytest.mark.parametrize("text", ["tell-tale", f"{'tell-tale' * 4},tell-tale", "tell-tale-é-0123456789", ","])
def test_a_weak_signing_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ConfigError, match=r"SIGNING_KEYS=\*\*\*: must be keys of at least 16") as caught:
        Config.from_env({"SIGNING_KEYS": text})
    assert "tale" not in str(caught.value)


def test_trusted_hosts_can_be_ip_addresses() -> None:
    names = ("images.example.org", "10.0.0.1", "::1", "fe80::1", "my_host")
    assert Config.from_env({"TRUSTED_HOSTS": ",".join(names)}).trusted_hosts == names


def test_invalid_combinations_are_reported_together_with_other_problems() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env({"STORE": "s3", "PORT": "x"})
    assert "PORT=x" in str(caught.value)
    assert "STORE=s3: needs S3_BUCKET" in str(caught.value)


def test_a_wrong_bucket_name_is_not_reported_as_missing() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env({"S3_BUCKET": "my bucket"})
    assert "S3_BUCKET=my bucket: " in str(caught.value)
    assert "STORE" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"IMAGE_URLS": "s3"}, "IMAGE_URLS=s3: needs an S3 store"),
        ({"IMAGE_URLS": "presigned"}, "IMAGE_URLS=presigned: needs an S3 store"),
        ({"VARIANTS_IN_STORE": "yes"}, "VARIANTS_IN_STORE=yes: needs an S3 store"),
        (
            {"S3_BUCKET": "cats", "IMAGE_URLS": "presigned", "PUBLIC_BASE_URL": "https://x.org"},
            "PUBLIC_BASE_URL=https://x.org: can't be presigned",
        ),
        ({"S3_BUCKET": "cats", "S3_SSE_KMS_KEY_ID": "k"}, "S3_SSE_KMS_KEY_ID=k: needs S3_SSE=aws:kms"),
        (
            {"S3_BUCKET": "cats", "S3_SSE": "AES256", "S3_SSE_KMS_KEY_ID": "k"},
            "S3_SSE_KMS_KEY_ID=k: needs S3_SSE=aws:kms",
        ),
    ],
)
def test_settings_that_require_or_contradict_each_other(given: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Config.from_env(given)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"GENERATOR": "bedrock"}, "GENERATOR=bedrock: needs GENERATOR_MODEL"),
        ({"GENERATOR": "openai", "OPENAI_API_KEY": "sk-1"}, "GENERATOR=openai: needs GENERATOR_MODEL"),
        ({"GENERATOR": "openai", "GENERATOR_MODEL": "m"}, "GENERATOR=openai: needs OPENAI_API_KEY, or"),
        ({"OPENAI_BASE_URL": "localhost:8080"}, r"OPENAI_BASE_URL=localhost:8080: is not an http\(s\) URL"),
    ],
)
def test_a_generator_without_its_required_settings_is_rejected(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Config.from_env(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"GENERATOR": "bedrock", "GENERATOR_MODEL": "stability.sd3-5-large-v1:0"},
        {"GENERATOR": "openai", "GENERATOR_MODEL": "m", "OPENAI_API_KEY": "sk-1"},
        {"GENERATOR": "openai", "GENERATOR_MODEL": "m", "OPENAI_BASE_URL": "http://127.0.0.1:8080/v1"},
        {"GENERATOR": "mypackage.models:MyModel"},
    ],
)
def test_a_generator_with_its_required_settings_is_accepted(environ: dict[str, str]) -> None:
    assert Config.from_env(environ).generator == environ["GENERATOR"]


def test_the_config_is_frozen_and_its_repr_shows_no_secret() -> None:
    config = Config.from_env({"API_KEYS": "hush", "OPENAI_API_KEY": "hush"})
    assert "hush" not in repr(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.port = 1  # type: ignore[misc]


def test_the_example_file_names_each_setting_with_its_default() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", text, re.MULTILINE))
    assert set(lines) == NAMES | READ_BY_BOTO3
    assert Config.from_env(lines) == Config.from_env({})


def test_the_documentation_explains_each_setting() -> None:
    text = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| ((?:`[A-Z0-9_]+`(?:, )?)+) \|", text, re.MULTILINE)
    explained = {name for cell in table for name in re.findall(r"`([A-Z0-9_]+)`", cell)}
    assert explained == NAMES | READ_BY_BOTO3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL_S3", "ftp://user:tell-tale@minio:9000"),
        ("OPENAI_BASE_URL", "https://user:tell-tale/@tale@models:x/v1"),
        ("PUBLIC_BASE_URL", "https://user:tell-tale@cdn.example.org/images"),
    ],
)
def test_a_password_in_a_url_is_not_shown(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        Config.from_env({name: value})
    assert "tale" not in str(caught.value)


PASSWORD = "tell-tale-of-a-secret"


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t", "\u00a0"])
@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "API_KEYS", "RATELIMIT_STORAGE_URI", "S3_BUCKET", "STATE_DIR"]
)
def test_white_space_around_a_setting_is_ignored(name: str, end: str) -> None:
    value = "redis://:pass@counters:6379/0" if name == "RATELIMIT_STORAGE_URI" else "a-value"
    given, bare = Config.from_env({name: f"{end}{value}{end}"}), Config.from_env({name: value})
    assert given == bare
    assert Config.from_env({name: end}) == Config.from_env({})


@pytest.mark.parametrize("inside", ["\n", "\x00", "\x1f", "\x7f", "\x9f"])
@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "OPENAI_BASE_URL", "GENERATOR_MODEL", "S3_SSE_KMS_KEY_ID", "HOST", "STATE_DIR"]
)
def test_a_setting_with_a_control_character_is_refused_by_name(name: str, inside: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){name}=.*control character"):
        Config.from_env({name: f"a{inside}b"})


MALFORMED_REDIS_URIS = [
    f"redis://:{PASSWORD}/x@counters:6379/0",
    f"redis://:{PASSWORD}#x@counters:6379/0",
    f"redis://user:{PASSWORD}:6379",
    f"redis://:{PASSWORD}\n@counters",
    f"redis://:{PASSWORD} x@counters",
    f"rediss://[{PASSWORD}",
]


@pytest.mark.parametrize("uri", MALFORMED_REDIS_URIS)
def test_a_password_in_a_malformed_redis_uri_is_not_shown(uri: str) -> None:
    with pytest.raises(
        ConfigError, match=r"RATELIMIT_STORAGE_URI=\*\*\*: must be .*percent-encoded"
    ) as caught:
        Config.from_env({"RATELIMIT_STORAGE_URI": uri})
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("odd", ["sk-“x”", "sk x", "sk\u200b", "schlüssel"])
def test_a_key_that_is_not_allowed_in_headers_is_rejected_without_being_shown(odd: str) -> None:
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY=\*\*\*: must be visible ASCII") as caught:
        Config.from_env({"OPENAI_API_KEY": odd})
    assert odd not in str(caught.value)
