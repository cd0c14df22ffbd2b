"""What a check is: a named function of the patient."""

from collections.abc import Callable
from dataclasses import dataclass

from app.bucket.doctor.finding import Finding
from app.bucket.doctor.patient import Patient

Examine = Callable[[Patient], Finding]


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """One thing that is looked at. `needs` are checks without which this one could find nothing."""

    name: str
    examine: Examine
    needs: tuple["Check", ...] = ()
    elsewhere: bool = False
    """Whether it asks another service than S3, which may be out of reach where S3 is not."""
    tidies_up: bool = False
    """Whether it is run even where no time is left, since it removes what another check made."""


def check(*needs: Check, elsewhere: bool = False, tidies_up: bool = False) -> Callable[[Examine], Check]:
    """Make a function a check; `def bucket_exists` is the check `bucket-exists`."""

    def make(examine: Examine) -> Check:
        return Check(examine.__name__.replace("_", "-"), examine, needs, elsewhere, tidies_up)

    return make
