"""The generator, and what its provider says of the model."""

from app.bucket.doctor.check import Check, check
from app.bucket.doctor.finding import Finding, ok, problem, warning
from app.bucket.doctor.patient import Patient
from app.errors import AppError, ConfigError, GeneratorError
from app.generators.base import BaseGenerator
from app.plugins import find_class

_ACTIVE = "ACTIVE"


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


@check(generator, elsewhere=True)
def generator_model(patient: Patient) -> Finding:
    """The provider knows the model, lets us use it, and goes on having it."""
    try:
        facts = patient.describe_model()
    except GeneratorError as exc:
        told = exc.detail or exc.message
        return problem(f"The provider does not tell of GENERATOR_MODEL: {told}", _fix(patient))
    except AppError as exc:
        return problem(f"GENERATOR_MODEL can't be looked up: {exc.message}", _fix(patient))
    if facts is None:
        return ok(f"GENERATOR={patient.config.generator} depends on no provider.")
    if facts.ends is not None or facts.status != _ACTIVE:
        until = f", and is switched off on {facts.ends:%Y-%m-%d}" if facts.ends else ""
        return warning(f"The model {facts.model} is {facts.status}{until}.", "Choose another GENERATOR_MODEL")
    return ok(f"The provider has the model {facts.model}.")


def _fix(patient: Patient) -> str:
    if patient.config.generator == "bedrock":
        return "Check GENERATOR_MODEL and BEDROCK_REGION; allow what flask bucket iam-policy prints"
    return "Check GENERATOR_MODEL, OPENAI_API_KEY and OPENAI_BASE_URL"


GENERATOR_CHECKS: tuple[Check, ...] = (generator, generator_model)
