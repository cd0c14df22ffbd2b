"""What libraries read from the environment by themselves: cleaned, or refused by name."""

import os

import pytest

from app.config.env_file import clean_library_variables
from app.config.settings import Config
from app.core.errors import ConfigError

SECRET = "tell-tale-of-a-secret"

KEYS = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "OPENAI_ORG_ID",
    "HTTPS_PROXY",
    "http_proxy",
]


@pytest.mark.parametrize("around", [f"{SECRET}\n", f"\r\n {SECRET}\t", f"\u00a0{SECRET}\u2028"])
@pytest.mark.parametrize("name", KEYS)
def test_white_space_around_is_taken_away(monkeypatch: pytest.MonkeyPatch, name: str, around: str) -> None:
    monkeypatch.setenv(name, around)
    clean_library_variables()
    assert os.environ[name] == SECRET


@pytest.mark.parametrize("inside", ["\n", "\r", "\t", "\x01", "\x7f", "\x85", "\u2028"])
@pytest.mark.parametrize("name", [*KEYS, "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ROLE_ARN"])
def test_control_characters_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, inside: str
) -> None:
    monkeypatch.setenv(name, f"{SECRET}{inside}{SECRET}")
    with pytest.raises(ConfigError, match=f"^{name}: ") as caught:
        clean_library_variables()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"])
def test_what_no_header_holds_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A word processor's quotes, a space without width."""
    for odd in ("“", "\u200b", "é", "\udcff"):
        monkeypatch.setenv(name, f"{SECRET}{odd}")
        with pytest.raises(ConfigError, match=name) as caught:
            clean_library_variables()
        assert SECRET not in str(caught.value)


def test_all_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "a\nb")
    with pytest.raises(ConfigError, match=r"^AWS_ACCESS_KEY_ID, AWS_SESSION_TOKEN: "):
        clean_library_variables()


def test_an_empty_one_of_aws_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 takes an empty AWS_PROFILE for the name of a profile."""
    monkeypatch.setenv("AWS_PROFILE", " \n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "")
    clean_library_variables()
    assert not {"AWS_PROFILE", "AWS_ENDPOINT_URL"} & set(os.environ)


def test_others_are_let_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {
        "OPENAI_CUSTOM_HEADERS": "A: b\nC: d",
        "MY_AWS_KEY": "a\n",
        "AWS_SECRET_ACCESS_KEY": "schlüssel",
    }
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    clean_library_variables()
    assert {name: os.environ[name] for name in others} == others


@pytest.mark.parametrize("end", ["\n", "\r\n", " ", "\t", "\u00a0"])
@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "API_KEYS", "RATELIMIT_STORAGE_URI", "S3_BUCKET", "STATE_DIR"]
)
def test_white_space_around_a_setting_does_not_count(name: str, end: str) -> None:
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


URIS = [
    f"redis://:{SECRET}/x@counters:6379/0",
    f"redis://:{SECRET}#x@counters:6379/0",
    f"redis://user:{SECRET}:6379",
    f"redis://:{SECRET}\n@counters",
    f"redis://:{SECRET} x@counters",
    f"rediss://[{SECRET}",
]


@pytest.mark.parametrize("uri", URIS)
def test_a_password_in_a_uri_that_can_not_be_read_is_not_shown(uri: str) -> None:
    with pytest.raises(
        ConfigError, match=r"RATELIMIT_STORAGE_URI=\*\*\*: must be .*percent-encoded"
    ) as caught:
        Config.from_env({"RATELIMIT_STORAGE_URI": uri})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("odd", ["sk-“x”", "sk x", "sk\u200b", "schlüssel"])
def test_a_key_that_no_header_holds_is_refused_without_being_shown(odd: str) -> None:
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY=\*\*\*: must be visible ASCII") as caught:
        Config.from_env({"OPENAI_API_KEY": odd})
    assert odd not in str(caught.value)
