"""What AWS's error codes mean to an operator, in the same words for the log, the doctor and bucket commands.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from typing import NamedTuple


class Meaning(NamedTuple):
    """What is wrong, a sentence, and what mends it: a command, a setting or a place, without a full stop."""

    text: str
    fix: str

    def __str__(self) -> str:
        return f"{self.text} {self.fix}"


CHECK_NETWORK = "Check the network, AWS_REGION and AWS_ENDPOINT_URL_S3"
SET_CREDENTIALS = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
)
CHECK_SETTINGS = "Correct the AWS_… variable or the setting of the profile that boto3 can't use"
_SET_REGION = "Set AWS_REGION to the bucket's region; where AWS_ENDPOINT_URL_S3 is set, check that as well"

BUSY = Meaning("S3 is overloaded or out of order.", "Try again in a minute; there is nothing to set")
EXPIRED = Meaning(
    "The temporary credentials have expired.",
    "Renew AWS_SESSION_TOKEN and its keys, or: aws sso login; then restart the server",
)
REDIRECTED = Meaning("The bucket lies in another region than AWS_REGION.", _SET_REGION)
_UNKNOWN_KEY = Meaning("The access key is not known there.", "Check AWS_ACCESS_KEY_ID")

MEANINGS = {
    "ExpiredToken": EXPIRED,
    "ExpiredTokenException": EXPIRED,
    "TokenRefreshRequired": EXPIRED,
    "InvalidToken": Meaning(
        "AWS_SESSION_TOKEN does not belong to the access key.", "Set it anew with both keys, or remove it"
    ),
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "InvalidClientTokenId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": Meaning(
        "The secret access key does not belong to the access key.", "Check AWS_SECRET_ACCESS_KEY"
    ),
    "RequestTimeTooSkewed": Meaning(
        "This machine's clock differs too much from the server's.", "timedatectl set-ntp true"
    ),
    "AccountProblem": Meaning("AWS has a problem with the account.", "See the account's billing page"),
    "NotSignedUp": Meaning("The account is not signed up for S3.", "Sign up in the S3 console"),
    "AllAccessDisabled": Meaning("AWS has disabled this bucket or account.", "Ask AWS Support"),
    "NoSuchBucket": Meaning(
        "There is no such bucket.",
        "Correct S3_BUCKET or AWS_ENDPOINT_URL_S3, or make the bucket: flask bucket setup --mode private "
        "(or public)",
    ),
    "BucketAlreadyExists": Meaning(
        "This name belongs to somebody else: bucket names are unique across all of AWS.",
        "Choose another, for instance with your company's name, the project and the year",
    ),
    "InvalidBucketName": Meaning(
        "This can't be a bucket's name.", "Choose one of 3 to 63 lower-case letters, digits and hyphens"
    ),
    "TooManyBuckets": Meaning(
        "The account has as many buckets as it may.", "Delete one, or ask AWS for more"
    ),
    "OperationAborted": Meaning(
        "S3 is still busy with another change to this bucket, or with deleting one of this name.",
        "Try again in some minutes",
    ),
    "AccessControlListNotSupported": Meaning(
        "The bucket has ACLs disabled, but S3_ACL=public-read sends one with each put.",
        "Set S3_ACL=none, then: flask bucket setup --mode public",
    ),
    "InvalidObjectState": Meaning(
        "The object is archived.", "Restore it, and keep images out of archive classes"
    ),
    "PermanentRedirect": REDIRECTED,
    "AuthorizationHeaderMalformed": REDIRECTED,
    "301": REDIRECTED,
    "IllegalLocationConstraintException": Meaning(
        "AWS_REGION and the address that answered do not fit together.", _SET_REGION
    ),
    "SlowDown": BUSY,
    "ServiceUnavailable": BUSY,
    "InternalError": BUSY,
    "503": BUSY,
    "500": BUSY,
}
"""By code; that of an answer without a body, to HEAD, is its status."""
