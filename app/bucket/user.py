"""The IAM user that the server works as: made, given the least policy, and a key for it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore import xform_name

from app.bucket.clients import AwsClients
from app.bucket.errors import BucketError, errors_mapped


@dataclass(frozen=True)
class AccessKey:
    """A key of an IAM user; the secret is known only now and stays out of texts."""

    key_id: str
    secret: str = field(repr=False)

    @property
    def settings(self) -> dict[str, str]:
        """The settings by which boto3 finds it."""
        return {"AWS_ACCESS_KEY_ID": self.key_id, "AWS_SECRET_ACCESS_KEY": self.secret}


class ServerUser:
    """An IAM user, by name."""

    def __init__(self, clients: AwsClients, name: str) -> None:
        self._clients = clients
        self.name = name

    def make(self) -> bool:
        """Make the user; False where it was there already."""
        try:
            self._call("CreateUser")
        except BucketError as exc:
            if exc.aws_code != "EntityAlreadyExists":
                raise
            return False
        return True

    def allow(self, policy_name: str, document: Mapping[str, Any]) -> None:
        """Give the user this inline policy, in place of one of the same name."""
        self._call("PutUserPolicy", PolicyName=policy_name, PolicyDocument=json.dumps(document))

    def has_key(self, key_id: str) -> bool:
        """Whether the key is an active one of this user; False where there is no such user."""
        try:
            keys = self._call("ListAccessKeys")["AccessKeyMetadata"]
        except BucketError as exc:
            if exc.aws_code != "NoSuchEntity":
                raise
            return False
        return any(key["AccessKeyId"] == key_id and key["Status"] == "Active" for key in keys)

    def new_key(self) -> AccessKey:
        """A new access key; a user may have two."""
        try:
            key = self._call("CreateAccessKey")["AccessKey"]
        except BucketError as exc:
            if exc.aws_code != "LimitExceeded":
                raise
            raise BucketError(
                f"The user {self.name} has two access keys, as many as AWS allows. See which is unused: aws "
                f"iam list-access-keys --user-name {self.name}; delete it: aws iam delete-access-key "
                f"--user-name {self.name} --access-key-id …"
            ) from exc
        return AccessKey(key["AccessKeyId"], key["SecretAccessKey"])

    def delete_key(self, key: AccessKey) -> None:
        """Delete a key of this user."""
        self._call("DeleteAccessKey", AccessKeyId=key.key_id)

    def _call(self, operation: str, **parameters: Any) -> Any:
        with errors_mapped(operation):
            return getattr(self._clients.iam, xform_name(operation))(UserName=self.name, **parameters)
