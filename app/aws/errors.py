"""Classify the exceptions that boto3 raises, and decide which parts of their messages can be shown.

Not all of these exceptions are boto3's own: credential providers also raise `OSError`, `ValueError` and other
built-in exceptions. For an error response from AWS, boto3 raises a `ClientError` with a code. The codes
differ between services, so this module leaves them to its callers.
"""

import json
import re
import traceback
from enum import Enum, auto

from botocore import exceptions as theirs
from botocore.credentials import CredentialProvider
from botocore.parsers import ResponseParserError

from app.core.errors import AppError


class ErrorKind(Enum):
    """The kind of problem that an exception from boto3 indicates."""

    EXPIRED = auto()
    """The temporary credentials have expired, and so have the credentials that replaced them."""

    CREDENTIALS = auto()
    """There are no credentials, or the credential provider failed."""

    SETTINGS = auto()
    """boto3 can't use an environment variable or a setting in a profile."""

    TIMEOUT = auto()
    UNREACHABLE = auto()

    BAD_RESPONSE = auto()
    """There was a response, but AWS would not send such a response."""


SET_CREDENTIALS = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
)
RENEW_CREDENTIALS = "Renew AWS_SESSION_TOKEN and its keys, or: aws sso login; then restart the server"
CHECK_SETTINGS = "Correct the AWS_… variable or the setting in the profile that boto3 can't use"
CHECK_NETWORK = "Check the network, AWS_REGION and AWS_ENDPOINT_URL_S3"

FIXES = {
    ErrorKind.EXPIRED: RENEW_CREDENTIALS,
    ErrorKind.CREDENTIALS: SET_CREDENTIALS,
    ErrorKind.SETTINGS: CHECK_SETTINGS,
    ErrorKind.TIMEOUT: CHECK_NETWORK,
    ErrorKind.UNREACHABLE: CHECK_NETWORK,
    ErrorKind.BAD_RESPONSE: CHECK_NETWORK,
}
"""Instructions that tell operators how to fix each kind of error. They don't end in a full stop."""

MAX_MESSAGE_CHARS = 300
"""Maximum length of a message. Longer messages are truncated, since some messages quote a whole response."""

_TIMEOUTS = (theirs.ReadTimeoutError, theirs.ConnectTimeoutError)

_CONNECTION_ERRORS = (theirs.ConnectionError, theirs.HTTPClientError)

_CREDENTIALS_ERRORS = (
    theirs.NoCredentialsError,
    theirs.PartialCredentialsError,
    theirs.CredentialRetrievalError,
    theirs.UnknownCredentialError,
    theirs.RefreshWithMFAUnsupportedError,
    theirs.MetadataRetrievalError,
    theirs.InvalidIMDSEndpointError,
    theirs.InvalidIMDSEndpointModeError,
    theirs.NoAuthTokenError,
    theirs.TokenRetrievalError,
    theirs.UnknownTokenProviderError,
    theirs.ProfileNotFound,
    theirs.ConfigNotFound,
    theirs.ConfigParseError,
    theirs.InvalidConfigError,
    theirs.MissingDependencyException,
    theirs.SSOError,
    theirs.LoginError,
)

_SETTINGS_ERRORS = (
    theirs.BaseEndpointResolverError,
    theirs.EndpointProviderError,
    theirs.InvalidRegionError,
    theirs.UnknownRegionError,
    theirs.ServiceNotInRegionError,
    theirs.InvalidDNSNameError,
    theirs.InvalidHostLabelError,
    theirs.InvalidEndpointConfigurationError,
    theirs.InvalidS3AddressingStyleError,
    theirs.InvalidS3UsEast1RegionalEndpointConfigError,
    theirs.InvalidSTSRegionalEndpointsConfigError,
    theirs.InvalidRetryConfigurationError,
    theirs.InvalidDefaultsMode,
    theirs.InvalidProxiesConfigError,
    theirs.InvalidChecksumConfigError,
    theirs.UnsupportedS3ConfigurationError,
    theirs.UnsupportedS3AccesspointConfigurationError,
    theirs.UnsupportedS3ControlConfigurationError,
    theirs.UnsupportedSignatureVersionError,
    theirs.UnknownSignatureVersionError,
)

_CREDENTIALS_MODULES = {"botocore.credentials", "botocore.tokens"}
_SETTINGS_MODULES = {
    "botocore.args",
    "botocore.configprovider",
    "botocore.endpoint_provider",
    "boto3.session",
}

_STILL_EXPIRED = "Credentials were refreshed"
"""The start of the message of the `RuntimeError` that botocore raises if it renewed a role's credentials, but
the new credentials have already expired."""


def classify(exc: Exception) -> ErrorKind | None:
    """Return the kind of `exc`, or None if it is an error response from AWS or was not raised by boto3."""
    if isinstance(exc, AppError | theirs.ClientError):
        return None
    if isinstance(exc, RuntimeError) and str(exc).startswith(_STILL_EXPIRED):
        return ErrorKind.EXPIRED
    if isinstance(exc, _TIMEOUTS):
        return ErrorKind.TIMEOUT
    if isinstance(exc, _CONNECTION_ERRORS):
        return ErrorKind.UNREACHABLE
    if isinstance(exc, _CREDENTIALS_ERRORS):
        return ErrorKind.CREDENTIALS
    if isinstance(exc, _SETTINGS_ERRORS):
        return ErrorKind.SETTINGS
    if isinstance(exc, theirs.BotoCoreError | ResponseParserError):
        return ErrorKind.BAD_RESPONSE
    return _classify_by_traceback(exc)


def _classify_by_traceback(exc: Exception) -> ErrorKind | None:
    """Return the kind of an exception, judging only by the modules in its traceback, or None."""
    modules = {str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(exc.__traceback__)}
    if not any(module.partition(".")[0] in ("botocore", "boto3") for module in modules):
        return None
    if modules & _CREDENTIALS_MODULES:
        return ErrorKind.CREDENTIALS
    return ErrorKind.SETTINGS if modules & _SETTINGS_MODULES else ErrorKind.BAD_RESPONSE


_CREDENTIALS_OPERATIONS = re.compile(
    r"AssumeRole.*|Get(SessionToken|FederationToken|RoleCredentials)|CreateToken|CreateOAuth2Token"
)
"""Matches the operations with which boto3 gets credentials from STS, from SSO, or from the console login."""


def is_about_credentials(exc: theirs.ClientError) -> bool:
    """Return whether the error came from a service that issues credentials, not from S3 or Bedrock."""
    return bool(_CREDENTIALS_OPERATIONS.fullmatch(exc.operation_name))


_QUOTED_HEADER = re.compile(r"header value b['\"]", re.IGNORECASE)
"""Matches messages in which Python's HTTP client quotes a header that it can't send. The header may contain a
secret."""

_SECRET_IN_URL = re.compile(r"(?<=//)[^/\s]+(?=@)|(?<=/v2/credentials/)[\w-]+")
"""Matches the user and password in a URL, and the ID with which a container gets the credentials of its
role."""


def public_message(exc: Exception) -> str:
    """Return the message of `exc` as one line, without headers, response bodies or secrets."""
    if isinstance(exc, ResponseParserError):
        text = str(exc).partition("\n")[0]  # the other lines quote the response, which may be from STS
    elif isinstance(exc, theirs.HTTPClientError) and type(exc) in (
        theirs.HTTPClientError,
        theirs.ResponseStreamingError,
    ):
        text = f"the HTTP client failed: {type(getattr(exc, 'kwargs', {}).get('error')).__name__}"
    elif isinstance(exc, theirs.BotoCoreError):
        text = str(exc)
    elif isinstance(exc, OSError):
        text = f"{exc.strerror or type(exc).__name__}{f': {exc.filename}' if exc.filename else ''}"
    elif isinstance(exc, json.JSONDecodeError):
        text = "not JSON"
    else:
        text = f"{type(exc).__name__}: {exc}"
    if not isinstance(exc, theirs.BotoCoreError) and (provider := _failing_provider(exc)):
        text = f"the credential provider {provider} failed: {text}"
    if _QUOTED_HEADER.search(text):
        text = f"{type(exc).__name__}: a header that can't be sent"
    return " ".join(_SECRET_IN_URL.sub("***", text).split())[:MAX_MESSAGE_CHARS]


def _failing_provider(exc: Exception) -> str:
    """Return botocore's name for the credential provider that raised `exc`, or an empty string."""
    found = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(exc.__traceback__))
    names = [provider.METHOD for provider in found if isinstance(provider, CredentialProvider)]
    return str(names[-1] or "") if names else ""


def vendor_message(exc: theirs.ClientError) -> str:
    """Return the first line of AWS's message, or an empty string if the line quotes the request's headers.

    The response to a wrong signature contains the whole signed request, including the session token.
    """
    message = str(exc.response.get("Error", {}).get("Message", "")).partition("\n")[0]
    return "" if re.search(r"authorization|x-amz-", message, re.IGNORECASE) else message[:MAX_MESSAGE_CHARS]
