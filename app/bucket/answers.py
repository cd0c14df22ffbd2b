"""Recognizes successful answers that do not answer the question.

A server that does not know a subresource such as `?encryption` may ignore it and answer as for the bare
bucket: 200 with a listing. botocore finds none of its elements there, and returns an empty setting.
"""

import json
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from botocore.exceptions import ClientError

from app.bucket.errors import OTHER_ANSWER

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ELEMENTS = {
    "GetBucketAcl": ("AccessControlPolicy", "AccessControlList"),
    "GetBucketCors": ("CORSConfiguration", "CORSRule"),
    "GetBucketEncryption": ("ServerSideEncryptionConfiguration", "Rule"),
    "GetBucketLifecycleConfiguration": ("LifecycleConfiguration", "Rule"),
    "GetBucketLogging": ("BucketLoggingStatus", "LoggingEnabled"),
    "GetBucketOwnershipControls": ("OwnershipControls", "Rule"),
    "GetPublicAccessBlock": ("PublicAccessBlockConfiguration", "BlockPublicAcls"),
}
"""The root element of each answer, and one inside it. Either will do: the inner one is missing if nothing is
configured, and some servers call the root something else. The answer to GetBucketPolicy is JSON."""


def refuse_other_answers(client: "S3Client") -> None:
    """Let calls that read a setting fail with the code `OTHER_ANSWER` if the answer is to something else."""
    for operation in (*_ELEMENTS, "GetBucketPolicy"):
        client.meta.events.register(f"after-call.s3.{operation}", _check)


def _check(model: Any, http_response: Any, **_: Any) -> None:
    """Raise `ClientError` for another body; an empty one counts as a setting that is not configured."""
    body, operation = http_response.content, model.name
    status = http_response.raw.status  # that of `http_response` is 500 if the body is not XML
    if status >= 300 or not body.strip():
        return
    fits = _is_policy(body) if operation == "GetBucketPolicy" else _has_one_of(body, _ELEMENTS[operation])
    if not fits:
        error: Any = {"Code": OTHER_ANSWER, "Message": "The answer is not to what was asked."}
        metadata: Any = {"HTTPStatusCode": status}
        raise ClientError({"Error": error, "ResponseMetadata": metadata}, operation)


def _is_policy(body: bytes) -> bool:
    try:
        policy = json.loads(body)
    except ValueError:
        return False
    return isinstance(policy, dict) and "Statement" in policy


def _has_one_of(body: bytes, names: tuple[str, ...]) -> bool:
    """Return whether the root element or one right inside it has such a name, or is an error's.

    What is not XML counts if it holds the name: it was cut off.
    """
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return names[0].encode() in body
    return any(element.tag.rpartition("}")[2] in (*names, "Error") for element in (root, *root))
