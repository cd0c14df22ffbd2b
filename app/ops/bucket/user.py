"""A key of the server's user in `.env`: made where there is none, taken back where it can't be kept.

The IAM user that the server works as: made, given the least policy, and a key for it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore import xform_name

from app.config.env_file import read_settings, write_settings
from app.ops.bucket.clients import AwsClients
from app.ops.bucket.errors import BucketError, errors_mapped


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


_KEY_NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Provision:
    """What was done: whether the user is new, and the key now in `.env`, None where its own was there."""

    created: bool
    key: AccessKey | None


def provide_user(
    user: ServerUser, policy_name: str, document: Mapping[str, Any], env: Path, *, replace: bool
) -> Provision:
    """Make the user, allow it what `document` says, and put a key of it into the file `env`.

    A key of this user that is there stays, and anybody else's, unless `replace`. Raises `BucketError`, before
    anything is made where the file holds keys of others, and otherwise with the new key deleted.
    """
    held = read_settings(env)
    keeps = not replace and any(name in held for name in _KEY_NAMES)
    if keeps and not (all(name in held for name in _KEY_NAMES) and user.has_key(held[_KEY_NAMES[0]])):
        raise BucketError(f"{env} holds keys, but none of {user.name}. --replace-keys replaces them.")
    created = user.make()
    user.allow(policy_name, document)
    if keeps:
        return Provision(created, None)
    key = user.new_key()
    _keep(user, key, env)
    return Provision(created, key)


def _keep(user: ServerUser, key: AccessKey, env: Path) -> None:
    """Write the key down; a session token beside it would make AWS refuse it."""
    try:
        write_settings(env, key.settings, without=("AWS_SESSION_TOKEN",))
    except OSError as exc:
        _take_back(user, key)
        raise BucketError(
            f"{env} could not be written ({exc.strerror}), so the new key was deleted again."
        ) from exc
    except BaseException:
        _take_back(user, key)
        raise


def _take_back(user: ServerUser, key: AccessKey) -> None:
    try:
        user.delete_key(key)
    except BucketError as exc:
        raise BucketError(
            f"The new key could neither be written down nor deleted: {exc.message} Delete it: aws iam "
            f"delete-access-key --user-name {user.name} --access-key-id {key.key_id}"
        ) from exc
