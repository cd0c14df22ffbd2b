"""What a bucket is to become."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["public", "private"]


@dataclass(frozen=True)
class Target:
    """The bucket as `flask bucket setup` was asked to make it.

    `mode` says whether everybody may read its objects. `cors` are origins such as `https://example.org`;
    `expire` maps prefixes to the days after which objects below them go. `partition` is that of ARNs.
    """

    bucket: str
    region: str
    mode: Mode
    partition: str = "aws"
    cors: tuple[str, ...] = ()
    expire: Mapping[str, int] = field(default_factory=dict)

    @property
    def objects_arn(self) -> str:
        """The ARN of all objects in the bucket."""
        return f"arn:{self.partition}:s3:::{self.bucket}/*"
