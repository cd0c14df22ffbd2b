"""Every error of botocore becomes one of ours; those of the network and of credentials the right one."""

from typing import Any

import botocore.exceptions as theirs
import pytest
from botocore.parsers import ResponseParserError, create_parser

from app.core.errors import AppError, StoreError, StoreRefused, StoreTimeout, StoreUnreachable
from app.stores.s3.errors import errors_mapped


def _all(base: type[Exception]) -> list[type[Exception]]:
    return [base, *(found for child in base.__subclasses__() for found in _all(child))]


class _Anything(dict[str, Any]):
    """Fills any message."""

    def __missing__(self, name: str) -> str:
        return "x"


def _made(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, getattr(kind, "fmt", "x").format_map(_Anything()))
    return error


def _mapped(error: Exception) -> AppError:
    with pytest.raises(AppError) as caught, errors_mapped("GetObject"):
        raise error
    assert caught.value.__cause__ is error
    assert caught.value.detail.startswith("GetObject: ")
    return caught.value


@pytest.mark.parametrize("kind", _all(theirs.BotoCoreError), ids=lambda kind: kind.__name__)
def test_every_error_is_ours(kind: type[Exception]) -> None:
    assert isinstance(_mapped(_made(kind)), StoreError)


@pytest.mark.parametrize(
    "kind", [*_all(theirs.ConnectionError), *_all(theirs.HTTPClientError)], ids=lambda kind: kind.__name__
)
def test_the_network_is_an_outage(kind: type[Exception]) -> None:
    late = (theirs.ReadTimeoutError, theirs.ConnectTimeoutError)
    expected = StoreTimeout if issubclass(kind, late) else StoreUnreachable
    error = _mapped(_made(kind))
    assert type(error) is expected
    assert error.retry_after
    assert "AWS_ENDPOINT_URL_S3" in error.detail


@pytest.mark.parametrize(
    "kind",
    [
        theirs.NoCredentialsError,
        theirs.PartialCredentialsError,
        theirs.CredentialRetrievalError,
        theirs.ProfileNotFound,
        theirs.TokenRetrievalError,
        *_all(theirs.SSOError),
        *_all(theirs.LoginError),
    ],
    ids=lambda kind: kind.__name__,
)
def test_credentials_are_a_refusal_that_says_what_to_set(kind: type[Exception]) -> None:
    error = _mapped(_made(kind))
    assert type(error) is StoreRefused
    assert "AWS_ACCESS_KEY_ID" in error.detail


def test_an_answer_that_can_not_be_parsed() -> None:
    assert type(_mapped(ResponseParserError("x"))) is StoreError


def test_the_detail_quotes_nothing_of_an_answer_that_can_not_be_parsed() -> None:
    """It may be one of STS, with credentials, and the detail is logged."""
    parser: Any = create_parser("query")
    with pytest.raises(ResponseParserError) as parsed:
        parser.parse(
            {"status_code": 200, "headers": {}, "body": b"<SecretAccessKey>wJalr</SecretAccessKey"}, None
        )
    detail = _mapped(parsed.value).detail
    assert "invalid XML" in detail
    assert "wJalr" not in detail
