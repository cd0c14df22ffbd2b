"""Mistyped settings get a warning, and the variables of other programs get none."""

import pytest

from app.ops.mistyped_settings import mistyped_settings

MISTYPED = {
    "API_KEY": "API_KEYS",
    "APIKEYS": "API_KEYS",
    "TRUSTED_PROXY": "TRUSTED_PROXIES",
    "CACHE_MAX_BYTE": "CACHE_MAX_BYTES",
    "LOGLEVEL": "LOG_LEVEL",
    "api_keys": "API_KEYS",
    "WEB_CONCURENCY": "WEB_CONCURRENCY",
    "S3_BUCKET_NAME": "S3_BUCKET",
    "AWS_S3_BUCKET": "S3_BUCKET",
    "OPENAI_API_KEY_FILE": "OPENAI_API_KEY",
    "AWS_SECRET_ACCES_KEY": "AWS_SECRET_ACCESS_KEY",
}

OTHER_PROGRAMS_VARIABLES = [
    *["PATH", "HOME", "HOSTNAME", "SHELL", "TERM", "PWD", "LANG", "USER", "LOGNAME", "MAIL", "EDITOR", "TZ"],
    *["PIP_CACHE_DIR", "UV_CACHE_DIR", "XDG_CACHE_HOME", "AZURE_OPENAI_API_KEY", "OMP_NUM_THREADS"],
    *["AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "AWS_CONFIG_FILE", "AWS_ROLE_ARN"],
    *["HTTPS_PROXY", "no_proxy", "KUBERNETES_SERVICE_HOST", "REDIS_PORT", "PROMETHEUS_MULTIPROC_DIR"],
    *[
        "S3_IMAGE_SERVER_SET_BY_FILE",
        "ENV_FILE",
        "PORTS",
        "FLASK_APP",
        "GENERATOR_SERVICE_HOST",
        "SERVER_SOFTWARE",
    ],
]


@pytest.mark.parametrize(("name", "setting"), MISTYPED.items())
def test_a_mistyped_setting_gets_a_suggestion(name: str, setting: str) -> None:
    hint = f"Did you mean {setting}?"
    assert mistyped_settings({name: "x"}, "", "none") == [
        f"The environment variable {name} is not a setting. {hint}"
    ]
    loaded = mistyped_settings({name: "x"}, f"# keys\n\n{name}=x\n", ".env")
    assert loaded == [f"Line 3 of .env: {name} is not a setting. {hint}"]


def test_variables_of_other_programs_get_no_warning() -> None:
    assert mistyped_settings(dict.fromkeys(OTHER_PROGRAMS_VARIABLES, "x"), "", "none") == []


def test_every_unknown_name_in_the_file_gets_a_warning_unless_a_custom_class_may_read_it() -> None:
    text = "BASE=/srv\nCACHE_DIR=${BASE}/cache\nAWS_DEFAULT_REGION=x\nHTTPS_PROXY=x\nexport FOO=x\nPORT=1\n"
    assert mistyped_settings({}, text, ".env") == ["Line 5 of .env: FOO is not a setting."]
    assert mistyped_settings({"STORE": "my.stores:Mine"}, text, ".env") == []


def test_lines_without_effect_get_a_warning_that_quotes_no_values() -> None:
    text = "API_KEYS: sEcReT\nPORT\nPORT=1\n\nsEcReTsEcReT=\nPORT=2\n'A B=3\n"
    assert mistyped_settings({}, text, ".env") == [
        "Line 1 of .env is ignored because it is not of the form NAME=value.",
        "Line 2 of .env is ignored because it is not of the form NAME=value.",
        "Line 5 of .env: the name there is not a setting.",
        "PORT is set twice in .env, in lines 3 and 6. The last value is used.",
        "Line 7 of .env is ignored because it is not of the form NAME=value.",
    ]
