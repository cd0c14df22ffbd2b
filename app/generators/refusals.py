"""What people are told where a provider says no, to the prompt or to us."""

from app.errors import PromptRefused
from app.generators.payload import cleaned

NO_CREDENTIALS = "The image model refused our credentials. Its operator finds the reason in the log."
NO_QUOTA = "The quota for the image model is used up. Its operator finds the reason in the log."
NO_MODEL = "The image model is not available. Its operator finds the reason in the log."


def refusal(reason: object, secret: str = "") -> PromptRefused:
    """The refusal of a prompt, with the provider's reason, cleaned and without `secret`."""
    text = cleaned(reason, secret).rstrip(".")
    return PromptRefused(f"The image model refused this prompt: {text}. Please change it." if text else None)
