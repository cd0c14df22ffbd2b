"""A key of the server's user in `.env`: made where there is none, taken back where it can't be kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.bucket.env_file import read_settings, write_settings
from app.bucket.errors import BucketError
from app.bucket.user import AccessKey, ServerUser

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
