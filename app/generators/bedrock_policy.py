"""What an account needs to be allowed for the Bedrock generator."""

from typing import Any


def bedrock_statement(partition: str, region: str, model: str, *, checked: bool = False) -> dict[str, Any]:
    """Return the least IAM statement for `model`, an id or an ARN; `checked`: also to read its lifecycle."""
    arn = f"arn:{partition}:bedrock:{region}::foundation-model/{model}"
    actions = ["bedrock:InvokeModel", *(["bedrock:GetFoundationModel"] if checked else [])]
    return {"Effect": "Allow", "Action": actions, "Resource": model if model.startswith("arn:") else arn}
