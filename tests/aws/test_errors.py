"""Every exception from boto3 becomes one of our errors, in the store, in Bedrock and in bucket commands."""

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from subprocess import SubprocessError
from typing import Any

import botocore.exceptions as theirs
import pytest
from botocore.hooks import HierarchicalEmitter
from botocore.parsers import ResponseParserError

from app.aws.errors import ErrorKind, classify, public_message, vendor_message
from app.core.errors import AppError, GeneratorError, StoreError
from app.generators.bedrock import errors_mapped as bedrock_errors
from app.ops.bucket.errors import BucketError
from app.ops.bucket.errors import errors_mapped as bucket_errors
from app.ops.doctor.findings import finding_for
from app.stores.s3.errors import errors_mapped as store_errors

SECRET = "tell-tale-of-a-secret"
HEADER = f"Invalid header value b'{SECRET}\\n'"

MAPPERS: list[tuple[Callable[[str], AbstractContextManager[None]], type[AppError]]] = [
    (store_errors, StoreError),
    (bedrock_errors, GeneratorError),
    (bucket_errors, BucketError),
]
EACH = pytest.mark.parametrize(("mapped", "ours"), MAPPERS, ids=["store", "bedrock", "bucket"])

CLASSES = [
    kind
    for _, kind in inspect.getmembers(theirs, inspect.isclass)
    if issubclass(kind, Exception) and not issubclass(kind, Warning)
]
"""All exceptions in botocore's module, including those of later versions and imported ones."""

OTHERS: list[Exception] = [
    FileNotFoundError(2, "No such file", "/token"),
    PermissionError(13, "Permission denied", "/token"),
    ValueError("Unsupported host"),
    KeyError("AccessKeyId"),
    TypeError("expected str"),
    AttributeError("no attribute"),
    IndexError(),
    EOFError(),
    RuntimeError("anything"),
    UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, "invalid"),
    OverflowError(),
    RecursionError(),
    SubprocessError(),
    AssertionError(),
    TimeoutError(),
    Exception("anything"),
    ResponseParserError(f"invalid XML\n{SECRET}"),
]


class _Anything(dict[str, Any]):
    """Fills the placeholders of any message."""

    def __missing__(self, name: str) -> str:
        return "x"


def _made(kind: type[Exception]) -> Exception:
    if issubclass(kind, theirs.ClientError):
        answer: Any = {"Error": {"Code": "Any"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
        return kind(answer, "GetObject")
    made = kind.__new__(kind)
    Exception.__init__(made, getattr(kind, "fmt", "x").format_map(_Anything()))
    return made


def _raise_inside_botocore(exc: Exception) -> None:
    def handler(**_: Any) -> None:
        raise exc

    emitter = HierarchicalEmitter()
    emitter.register("any", handler)
    emitter.emit("any")


def test_the_list_of_exceptions_is_complete() -> None:
    assert {theirs.NoCredentialsError, theirs.ClientError, theirs.LoginError} <= set(CLASSES)
    assert len(CLASSES) > 80


@EACH
@pytest.mark.parametrize("exc", [*map(_made, CLASSES), *OTHERS], ids=lambda exc: type(exc).__name__)
def test_every_exception_becomes_our_error(
    mapped: Callable[[str], AbstractContextManager[None]], ours: type[AppError], exc: Exception
) -> None:
    with pytest.raises(ours) as caught, mapped("an operation"):
        _raise_inside_botocore(exc)
    assert caught.value.status in (500, 502, 503, 504)  # errors of commands have no status
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("exc", [*map(_made, CLASSES), *OTHERS], ids=lambda exc: type(exc).__name__)
def test_the_doctor_explains_every_exception(exc: Exception) -> None:
    try:
        _raise_inside_botocore(exc)
    except Exception as raised:
        found = finding_for(raised)
    assert found.text
    assert found.fix
    assert SECRET not in found.text + found.fix


@EACH
def test_exceptions_of_our_own_code_pass_unchanged(
    mapped: Callable[[str], AbstractContextManager[None]], ours: type[AppError]
) -> None:
    with pytest.raises(ZeroDivisionError), mapped("an operation"):
        raise ZeroDivisionError
    with pytest.raises(StoreError) as caught, mapped("an operation"):
        _raise_inside_botocore(StoreError(detail="one of ours, of a handler"))
    assert caught.value.detail == "one of ours, of a handler"


@pytest.mark.parametrize("kind", [theirs.HTTPClientError, theirs.ResponseStreamingError])
@EACH
def test_headers_are_not_quoted(
    mapped: Callable[[str], AbstractContextManager[None]], ours: type[AppError], kind: Any
) -> None:
    """Python's HTTP client quotes a header that it can't send."""
    with pytest.raises(ours) as caught, mapped("an operation"):
        raise kind(error=ValueError(HEADER))
    assert "ValueError" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in public_message(ValueError(HEADER))


WORDS = [
    (
        f"The request signature does not match.\nx-amz-security-token:{SECRET}",
        "The request signature does not match.",
    ),
    (f"'x' not a valid key=value pair in Authorization header: '{SECRET}'.", ""),
    (f"The header X-Amz-Security-Token:{SECRET} is wrong", ""),
    ("The security token is expired", "The security token is expired"),
]


@pytest.mark.parametrize(("words", "shown"), WORDS)
def test_the_message_of_aws_is_shown_without_our_request(words: str, shown: str) -> None:
    answer: Any = {"Error": {"Code": "x", "Message": words}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    exc = theirs.ClientError(answer, "CreateUser")
    assert vendor_message(exc) == shown
    for mapped, ours in MAPPERS:
        with pytest.raises(ours) as caught, mapped("an operation"):
            raise exc
        assert SECRET not in str(caught.value)


def test_other_exceptions_have_no_kind() -> None:
    assert classify(ValueError("x")) is None
    assert classify(theirs.NoRegionError()) is ErrorKind.SETTINGS


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://user:{SECRET}@minio:9000/cats", "https://***@minio:9000/cats"),
        (f"https://user:p@{SECRET}@minio:9000/cats", "https://***@minio:9000/cats"),
        (f"http://169.254.170.2/v2/credentials/{SECRET}", "http://169.254.170.2/v2/credentials/***"),
        ("https://s3.amazonaws.com/cats/a@b.png", "https://s3.amazonaws.com/cats/a@b.png"),
    ],
)
def test_secrets_in_urls_are_masked(url: str, shown: str) -> None:
    exc = theirs.EndpointConnectionError(endpoint_url=url, error=OSError())
    assert public_message(exc) == f'Could not connect to the endpoint URL: "{shown}"'
