"""What an exception that comes out of boto3 means, and which of its text can be shown.

botocore raises more than its own classes: sources of credentials pass on `OSError`, `ValueError` and others.
"""

import json
import re
import traceback
from enum import Enum, auto

from botocore import exceptions as theirs
from botocore.credentials import CredentialProvider
from botocore.parsers import ResponseParserError

from app.core.errors import AppError

LONGEST = 300
"""Most characters of a text that is shown; some quote a whole answer."""

_STILL_EXPIRED = "Credentials were refreshed"
"""How botocore's `RuntimeError` begins if a role's new credentials have expired as well."""

_LATE = (theirs.ReadTimeoutError, theirs.ConnectTimeoutError)

_UNREACHABLE = (theirs.ConnectionError, theirs.HTTPClientError)

CREDENTIALS_ERRORS = (
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
"""There are no credentials, or their source fails."""

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
"""A variable or a profile's setting that boto3 reads has a value that it can't use."""

_CREDENTIALS_MODULES = {"botocore.credentials", "botocore.tokens"}
_SETTINGS_MODULES = {
    "botocore.args",
    "botocore.configprovider",
    "botocore.endpoint_provider",
    "boto3.session",
}

_QUOTED_HEADER = re.compile(r"header value b['\"]", re.IGNORECASE)
"""How Python's HTTP client quotes a header that it can't send, such as one with a secret."""


_OF_CREDENTIALS = re.compile(
    r"AssumeRole.*|Get(SessionToken|FederationToken|RoleCredentials)|CreateToken|CreateOAuth2Token"
)
"""Operations by which boto3 itself gets credentials, of STS, of SSO and of the console's login."""


_SECRET_IN_URL = re.compile(r"(?<=//)[^/\s]+(?=@)|(?<=/v2/credentials/)[\w-]+")
"""User and password, and the id by which a container gets its role's credentials."""


class Kind(Enum):
    """What went wrong."""

    EXPIRED = auto()
    CREDENTIALS = auto()
    SETTINGS = auto()
    LATE = auto()
    UNREACHABLE = auto()
    ANSWER = auto()


def classify(exc: Exception) -> Kind | None:
    """Return what `exc` means; None if AWS answered it, or if it does not come from boto3."""
    if isinstance(exc, AppError | theirs.ClientError):
        return None
    modules = {str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(exc.__traceback__)}
    if isinstance(exc, RuntimeError) and str(exc).startswith(_STILL_EXPIRED):
        return Kind.EXPIRED
    if isinstance(exc, _LATE):
        return Kind.LATE
    if isinstance(exc, _UNREACHABLE):
        return Kind.UNREACHABLE
    if isinstance(exc, CREDENTIALS_ERRORS):
        return Kind.CREDENTIALS
    if isinstance(exc, _SETTINGS_ERRORS):
        return Kind.SETTINGS
    if isinstance(exc, theirs.BotoCoreError | ResponseParserError):
        return Kind.ANSWER
    return _kind_by_place(modules)


def _kind_by_place(modules: set[str]) -> Kind | None:
    """Return what an error of another class means, by the modules that it came through."""
    if not any(module.partition(".")[0] in ("botocore", "boto3") for module in modules):
        return None
    if modules & _CREDENTIALS_MODULES:
        return Kind.CREDENTIALS
    return Kind.SETTINGS if modules & _SETTINGS_MODULES else Kind.ANSWER


def public_message(exc: Exception) -> str:
    """Return the text of `exc` in one line, without what may be a header, an answer or a secret."""
    if isinstance(exc, ResponseParserError):  # below its first line is the whole answer, of STS too
        text = str(exc).partition("\n")[0]
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
    if not isinstance(exc, theirs.BotoCoreError) and (source := _source_of(exc)):
        text = f"the credentials' source {source} fails: {text}"
    if _QUOTED_HEADER.search(text):
        text = f"{type(exc).__name__}: a header that can't be sent"
    return " ".join(_SECRET_IN_URL.sub("***", text).split())[:LONGEST]


def _source_of(exc: Exception) -> str:
    """Return botocore's name of the source of credentials that `exc` came through, or an empty string."""
    found = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(exc.__traceback__))
    names = [provider.METHOD for provider in found if isinstance(provider, CredentialProvider)]
    return str(names[-1] or "") if names else ""


def vendor_message(exc: theirs.ClientError) -> str:
    """Return what AWS says in words: the first line, and nothing if it quotes our request's headers.

    A signature that does not match is answered with the request that was signed, session token included.
    """
    words = str(exc.response.get("Error", {}).get("Message", "")).partition("\n")[0]
    return "" if re.search(r"authorization|x-amz-", words, re.IGNORECASE) else words[:LONGEST]


def is_about_credentials(exc: theirs.ClientError) -> bool:
    """Return whether a source of credentials answered it, and not S3."""
    return bool(_OF_CREDENTIALS.fullmatch(exc.operation_name))
