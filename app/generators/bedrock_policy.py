"""What an account needs to be allowed for the Bedrock generator."""

from typing import Any

_PARTITIONS = (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"))


def bedrock_statement(region: str, model: str, *, checked: bool = False) -> dict[str, Any]:
    """The least IAM statement for `model`, an id or an ARN; with `checked`, also to read its lifecycle."""
    partition = next((name for prefix, name in _PARTITIONS if region.startswith(prefix)), "aws")
    arn = f"arn:{partition}:bedrock:{region}::foundation-model/{model}"
    actions = ["bedrock:InvokeModel", *(["bedrock:GetFoundationModel"] if checked else [])]
    return {"Effect": "Allow", "Action": actions, "Resource": model if model.startswith("arn:") else arn}
