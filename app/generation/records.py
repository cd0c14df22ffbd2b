"""Outcomes as JSON and back: the images that were stored, or the error that the first to ask was answered."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from app.errors import AppError
from app.generation.ledger import Outcome
from app.generation.order import StoredGeneration
from app.service import StoredImage

_log = logging.getLogger(__name__)


def outcome_of(
    request: str, work: Callable[[], Sequence[StoredGeneration]], *final: type[AppError]
) -> Outcome:
    """What comes of `work`, errors included; it may be tried again after those that are not `final`."""
    result: dict[str, Any]
    try:
        result, is_final = {"images": [_to_dict(generation) for generation in work()]}, True
    except AppError as exc:
        result = {"code": exc.code, "message": exc.message, "retry_after": exc.retry_after}
        is_final = isinstance(exc, final)
        _log.warning("generation failed: %s", exc)
    return Outcome(request, json.dumps(result), is_final, time.time())


def generations_in(outcome: Outcome, url_of: Callable[[str], str]) -> list[StoredGeneration]:
    """The images of an outcome, with their URLs as of today; raises the error that it was."""
    result = json.loads(outcome.result)
    if "code" in result:
        raise _error_of(result)
    return [_from_dict(image, url_of) for image in result["images"]]


def keys_in(outcome: Outcome) -> list[str]:
    """The keys of an outcome's images; none of an error."""
    return [image["key"] for image in json.loads(outcome.result).get("images", [])]


def _to_dict(generation: StoredGeneration) -> dict[str, Any]:
    image = asdict(generation.image)
    del image["url"]
    return {
        **image,
        "model": generation.model,
        "seed": generation.seed,
        "time": generation.time.isoformat(),
    }


def _from_dict(record: dict[str, Any], url_of: Callable[[str], str]) -> StoredGeneration:
    model, seed, time_text = record.pop("model"), record.pop("seed"), record.pop("time")
    image = StoredImage(url=url_of(record["key"]), **record)
    return StoredGeneration(image, model, seed, datetime.fromisoformat(time_text))


def _error_of(record: dict[str, Any]) -> AppError:
    """An error of the class that has this code."""
    classes = [AppError]
    for known in classes:
        if known.code == record["code"]:
            error = known(record["message"])
            error.retry_after = record.get("retry_after")
            return error
        classes += known.__subclasses__()
    return AppError()
