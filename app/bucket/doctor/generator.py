"""The generator; checks of a provider's models join `GENERATOR_CHECKS`."""

from app.bucket.doctor.check import Check, check
from app.bucket.doctor.finding import Finding, ok, problem
from app.bucket.doctor.patient import Patient
from app.errors import ConfigError
from app.generators.base import BaseGenerator
from app.plugins import find_class


@check()
def generator(patient: Patient) -> Finding:
    """One of one's own can be loaded; the others come with the server."""
    name = patient.config.generator
    if ":" not in name:
        return ok(f"GENERATOR={name} comes with the server.")
    try:
        find_class("GENERATOR", name, {}, BaseGenerator)
    except ConfigError as exc:
        return problem(exc.message, "Correct GENERATOR, or install the package that it names")
    return ok(f"GENERATOR={name} can be loaded.")


GENERATOR_CHECKS: tuple[Check, ...] = (generator,)
