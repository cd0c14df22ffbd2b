"""What a provider says of a model, for the operator."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """`status` is the provider's word, such as ACTIVE or LEGACY; `ends` is when the model goes, if known."""

    model: str
    status: str
    ends: datetime | None = None
