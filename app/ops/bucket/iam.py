"""The IAM user whose credentials the server uses: its minimal policy, and its access key in `.env`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore import xform_name

from app.aws.endpoints import DEFAULT_PARTITION, partition_of
from app.config.env_file import read_settings, write_settings
from app.config.settings import Config
from app.generators.bedrock import bedrock_statement
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import BucketError, errors_mapped
from app.ops.bucket.policy import Policy, Statement
from app.ops.bucket.state import Mode

_KEY_SETTINGS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

_AWS_MANAGED_KEY = "alias/aws/s3"
"""The alias of the KMS key that AWS creates for S3 in each account.

The key's own policy lets every S3 user in the account use it, so our IAM policy doesn't have to name it.
"""


@dataclass(frozen=True)
class AccessKey:
    """An access key of an IAM user. AWS returns the secret only once. Keep it out of logs and messages."""

    key_id: str
    secret: str = field(repr=False)

    @property
    def settings(self) -> dict[str, str]:
        """The names and values of the settings from which boto3 reads the key."""
        return {"AWS_ACCESS_KEY_ID": self.key_id, "AWS_SECRET_ACCESS_KEY": self.secret}


@dataclass(frozen=True)
class ProvidedUser:
    """The result of `provide_user`.

    `created` is True if the user is new. `key` is the new access key, or None if the existing key was kept.
    """

    created: bool
    key: AccessKey | None


def provide_user(
    clients: AwsClients, name: str, policy_name: str, policy: Mapping[str, Any], env: Path, *, replace: bool
) -> ProvidedUser:
    """Create the IAM user `name` with the inline policy, and write an access key of the user to `env`.

    If the file already contains a key of this user, the key is kept, unless `replace` is True. If the file
    contains a key that does not belong to the user, `BucketError` is raised before anything is changed. If
    the new key can't be written to the file, it is deleted again.
    """
    user = _IamUser(clients, name)
    found = read_settings(env)
    keep = not replace and any(setting in found for setting in _KEY_SETTINGS)
    if keep and not (
        all(setting in found for setting in _KEY_SETTINGS) and user.has_key(found[_KEY_SETTINGS[0]])
    ):
        raise BucketError(
            f"{env} contains keys that do not belong to {name}. Use --replace-keys to replace them."
        )
    created = user.create()
    user.put_policy(policy_name, policy)
    if keep:
        return ProvidedUser(created, None)
    key = user.create_key()
    try:
        # AWS refuses a key together with the session token of a different key.
        write_settings(env, key.settings, without=("AWS_SESSION_TOKEN",))
    except OSError as exc:
        user.discard_key(key)
        raise BucketError(
            f"{env} could not be written ({exc.strerror}), so the new key was deleted again."
        ) from exc
    except BaseException:
        user.discard_key(key)
        raise
    return ProvidedUser(created, key)


class _IamUser:
    def __init__(self, clients: AwsClients, name: str) -> None:
        self._clients = clients
        self._name = name

    def create(self) -> bool:
        """Create the user. Return False if it already exists."""
        try:
            self._call("CreateUser")
        except BucketError as exc:
            if exc.aws_code != "EntityAlreadyExists":
                raise
            return False
        return True

    def put_policy(self, policy_name: str, policy: Mapping[str, Any]) -> None:
        """Set the inline policy. It replaces a policy of the same name."""
        self._call("PutUserPolicy", PolicyName=policy_name, PolicyDocument=json.dumps(policy))

    def has_key(self, key_id: str) -> bool:
        """Return whether this user exists, and the key is one of its active keys."""
        try:
            keys = self._call("ListAccessKeys")["AccessKeyMetadata"]
        except BucketError as exc:
            if exc.aws_code != "NoSuchEntity":
                raise
            return False
        return any(key["AccessKeyId"] == key_id and key["Status"] == "Active" for key in keys)

    def create_key(self) -> AccessKey:
        """Create an access key. AWS allows at most two keys per user."""
        try:
            key = self._call("CreateAccessKey")["AccessKey"]
        except BucketError as exc:
            if exc.aws_code != "LimitExceeded":
                raise
            raise BucketError(
                f"The user {self._name} already has two access keys, and AWS allows no more. To list them: "
                f"aws iam list-access-keys --user-name {self._name}; to delete the unused one: aws iam "
                f"delete-access-key --user-name {self._name} --access-key-id …"
            ) from exc
        return AccessKey(key["AccessKeyId"], key["SecretAccessKey"])

    def discard_key(self, key: AccessKey) -> None:
        """Delete a key that could not be saved.

        Raises `BucketError` if that fails. The message contains the command that deletes the key.
        """
        try:
            self._call("DeleteAccessKey", AccessKeyId=key.key_id)
        except BucketError as exc:
            raise BucketError(
                f"The new key could be neither saved nor deleted: {exc.message} Delete it: aws iam "
                f"delete-access-key --user-name {self._name} --access-key-id {key.key_id}"
            ) from exc

    def _call(self, operation: str, **parameters: Any) -> Any:
        with errors_mapped(operation):
            return getattr(self._clients.iam, xform_name(operation))(UserName=self._name, **parameters)


def minimal_policy(config: Config, partition: str, mode: Mode | None = None) -> Policy:
    """Return the IAM policy with only the permissions that the server needs with these settings.

    `mode` is the mode of the bucket. If it is None, only the settings decide whether objects get an ACL.
    """
    bucket_arn = f"arn:{partition}:s3:::{config.s3_bucket}"
    object_actions = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
    if config.object_acl != "none" and mode != "private":
        object_actions.append("s3:PutObjectAcl")
    statements = [
        {"Sid": "Objects", "Effect": "Allow", "Action": object_actions, "Resource": f"{bucket_arn}/*"},
        # Without s3:ListBucket, S3 returns 403 instead of 404 for missing objects.
        {"Sid": "Listing", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": bucket_arn},
    ]
    if config.s3_sse_kms_key_id and not config.s3_sse_kms_key_id.endswith(_AWS_MANAGED_KEY):
        statements.append(_kms_statement(config, partition))
    if config.generator == "bedrock":
        drawing = bedrock_statement(
            partition_of(config.bedrock_region) or DEFAULT_PARTITION,
            config.bedrock_region,
            config.generator_model,
            with_lifecycle=True,
        )
        statements.append({"Sid": "Drawing", **drawing})
    return {"Version": "2012-10-17", "Statement": statements}


def _kms_statement(config: Config, partition: str) -> Statement:
    """Return the statement that allows encryption and decryption with the key in `S3_SSE_KMS_KEY_ID`.

    The resource is the ARN of the key, with `*` in place of an unknown account or region. If the setting is
    an alias, the statement allows all keys, under the condition that they have this alias.
    https://docs.aws.amazon.com/kms/latest/developerguide/cmks-in-iam-policies.html
    """
    arn_prefix, _, key = config.s3_sse_kms_key_id.rpartition(":")
    arn_prefix = arn_prefix or f"arn:{partition}:kms:{config.aws_region or '*'}:*"
    statement: Statement = {
        "Sid": "Encryption",
        "Effect": "Allow",
        "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
        "Resource": f"{arn_prefix}:key/{key.removeprefix('key/')}",
    }
    if key.startswith("alias/"):
        statement["Resource"] = f"{arn_prefix}:key/*"
        statement["Condition"] = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": key}}
    return statement
