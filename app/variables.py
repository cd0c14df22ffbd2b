"""Environment variables that libraries read by themselves: keys, tokens, proxies, endpoints.

A line break at the end of a secret, as many shells and secret stores leave it, makes an HTTP client refuse
the header and quote it in an exception.
"""

import os
import re

from app.errors import ConfigError

_THEIRS = re.compile(r"(AWS|OPENAI)_\w+|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)", re.IGNORECASE)

_IN_HEADERS = re.compile(
    r"AWS_(ACCESS_KEY_ID|SESSION_TOKEN|SECURITY_TOKEN|CONTAINER_AUTHORIZATION_TOKEN|BEARER_TOKEN_\w+)|"
    r"OPENAI_(API_KEY|ADMIN_KEY|ORG_ID|PROJECT_ID)"
)
"""Sent as headers or in them, which HTTP clients encode as ASCII."""

_LINES = {"OPENAI_CUSTOM_HEADERS"}
"""A header in each line."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def clean_variables() -> None:
    """Take surrounding white space from such variables; an empty one of AWS's counts as not set.

    Raises `ConfigError` that names those with characters that can't be used, and no value.
    """
    wrong = []
    for name, value in os.environ.items():
        if not _THEIRS.fullmatch(name):
            continue
        bare = value.strip()
        if bare != value:
            os.environ[name] = bare
        if not bare and name.startswith("AWS_"):
            del os.environ[name]
        if name not in _LINES and _is_wrong(name, bare):
            wrong.append(name)
    if wrong:
        raise ConfigError(
            f"{', '.join(sorted(wrong))}: the value holds a line break, a control character or another that "
            "can't be sent. Copy it anew, in one line and without quotes around it."
        )


def _is_wrong(name: str, value: str) -> bool:
    if _CONTROL.search(value):
        return True
    return bool(_IN_HEADERS.fullmatch(name)) and not value.isascii()
