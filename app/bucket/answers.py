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
        client.meta.events.register(f"before-parse.s3.{operation}", _check)


def _check(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """Raise `ClientError` for another body; an empty one counts as a setting that is not configured."""
    body, operation = response_dict["body"], operation_model.name
    if response_dict["status_code"] >= 300 or not body.strip():
        return
    fits = _is_policy(body) if operation == "GetBucketPolicy" else _has_one_of(body, _ELEMENTS[operation])
    if not fits:
        error: Any = {"Code": OTHER_ANSWER, "Message": "The answer is not to what was asked."}
        metadata: Any = {"HTTPStatusCode": response_dict["status_code"]}
        raise ClientError({"Error": error, "ResponseMetadata": metadata}, operation)


def _is_policy(body: bytes) -> bool:
    try:
        policy = json.loads(body)
    except ValueError:
        return False
    return isinstance(policy, dict) and "Statement" in policy


def _has_one_of(body: bytes, names: tuple[str, ...]) -> bool:
    """Return whether the root element or one right inside it has such a name; False for what is not XML."""
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return False
    return any(element.tag.rpartition("}")[2] in names for element in (root, *root))
