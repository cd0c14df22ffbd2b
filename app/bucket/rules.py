"""The steps for CORS, lifecycle and encryption; rules of others stay as they are, ours are known by ID."""

from dataclasses import replace
from typing import Any

from app.bucket.state import Answer, BucketState
from app.bucket.steps import Step
from app.bucket.target import Target

_OURS = "s3-image-server"
_ABORT_AFTER_DAYS = 7
_CORS_SECONDS = 3600

Rule = dict[str, Any]


def rule_steps(target: Target, state: BucketState) -> list[Step]:
    """The steps, none of which another depends on."""
    return [*_cors_steps(target, state), *_lifecycle_steps(target, state), *_encryption_steps(target, state)]


def _cors_steps(target: Target, state: BucketState) -> list[Step]:
    answer = state.answers.get("GetBucketCors")
    if answer is None:
        return []
    present = answer.get("CORSRules", [])
    rules = _merged(present, [_cors_rule(target.cors)])
    if rules == present:
        return []
    parameters = {"Bucket": target.bucket, "CORSConfiguration": {"CORSRules": rules}}
    return [Step(f"Let scripts from {', '.join(target.cors)} read", "PutBucketCors", parameters)]


def _cors_rule(origins: tuple[str, ...]) -> Rule:
    return {
        "ID": _OURS,
        "AllowedOrigins": list(origins),
        "AllowedMethods": ["GET", "HEAD"],
        "AllowedHeaders": ["*"],
        "MaxAgeSeconds": _CORS_SECONDS,
    }


def _lifecycle_steps(target: Target, state: BucketState) -> list[Step]:
    answer = state.answers.get("GetBucketLifecycleConfiguration")
    if answer is None:
        return []
    present = answer.get("Rules", [])
    wanted = [_abort_rule(), *(_expiry_rule(prefix, days) for prefix, days in target.expire.items())]
    known = {_essence(rule) for rule in present}
    missing = [rule for rule in wanted if _essence(rule) not in known]
    if not missing:
        return []
    expiring = [rule for rule in missing if "Expiration" in rule]
    fallback = _lifecycle_step(target, answer, expiring) if 0 < len(expiring) < len(missing) else None
    return [replace(_lifecycle_step(target, answer, missing), fallback=fallback)]


def _lifecycle_step(target: Target, answer: Answer, missing: list[Rule]) -> Step:
    rules = _merged(answer.get("Rules", []), missing)
    parameters = {"Bucket": target.bucket, "LifecycleConfiguration": {"Rules": rules}}
    smallest = "TransitionDefaultMinimumObjectSize"
    if smallest in answer:  # left out, it would go back to its default
        parameters[smallest] = answer[smallest]
    return Step(_told(missing), "PutBucketLifecycleConfiguration", parameters)


def _abort_rule() -> Rule:
    return {
        "ID": f"{_OURS} abort incomplete uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _ABORT_AFTER_DAYS},
    }


def _expiry_rule(prefix: str, days: int) -> Rule:
    return {
        "ID": f"{_OURS} expire {prefix}",
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "Expiration": {"Days": days},
    }


def _essence(rule: Rule) -> tuple[Any, ...]:
    """What a rule says, whichever way S3 wrote it down: an empty filter may come back in several forms."""
    prefix = rule.get("Filter", {}).get("Prefix", rule.get("Prefix", ""))
    abort = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
    return rule.get("ID"), rule.get("Status"), prefix, rule.get("Expiration", {}).get("Days"), abort


def _told(rules: list[Rule]) -> str:
    texts = [
        f"delete objects below {rule['Filter']['Prefix']} after {rule['Expiration']['Days']} days"
        for rule in rules
        if "Expiration" in rule
    ]
    if len(texts) < len(rules):
        texts.append(f"discard incomplete uploads after {_ABORT_AFTER_DAYS} days")
    return _sentence(", ".join(texts))


def _sentence(text: str) -> str:
    """With a capital in front; `capitalize` would change prefixes as well."""
    return text[0].upper() + text[1:]


def _encryption_steps(target: Target, state: BucketState) -> list[Step]:
    answer = state.answers.get("GetBucketEncryption")
    if answer is None or answer.get("ServerSideEncryptionConfiguration", {}).get("Rules"):
        return []
    rules = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
    parameters = {"Bucket": target.bucket, "ServerSideEncryptionConfiguration": {"Rules": rules}}
    return [Step("Encrypt objects with S3's own keys", "PutBucketEncryption", parameters)]


def _merged(present: list[Rule], ours: list[Rule]) -> list[Rule]:
    """`ours` in place of the rules with the same IDs, or behind those of others."""
    named = {rule["ID"]: rule for rule in ours}
    kept = [named.pop(rule.get("ID", ""), rule) for rule in present]
    return [*kept, *named.values()]
