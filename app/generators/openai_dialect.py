"""What a server's dialect of OpenAI's protocol lacks, learned from its refusals.

A name does not tell what a model takes: an Azure deployment or an alias of LiteLLM may be a GPT image model,
which refuses `response_format`, and has sizes of its own.
"""

import re
from dataclasses import dataclass
from typing import Any

from openai import APIStatusError

from app.generators.openai_errors import BLOCKED
from app.generators.sizes import nearest_size

_REFUSED = (400, 422)
"""FastAPI, and what is built on it, answers 422 for a field that it does not know."""

_OPTIONAL = ("response_format", "output_format", "n")
"""Parameters whose absence does not change what is seen: whether base64 or a URL is answered, the file's
format, and that one image is wanted, which is the default. Without `size` the picture would be another."""

_LONGEST_MESSAGE = 4000
_SIZES = re.compile(r"(?<!\w)([1-9]\d{1,4}) ?[x×] ?([1-9]\d{1,4})(?!\w)")


@dataclass(frozen=True, slots=True)
class Dialect:
    """Parameters that are not sent, and sizes of which one is chosen; none means any."""

    left_out: frozenset[str] = frozenset()
    sizes: frozenset[str] = frozenset()

    def form(self, form: dict[str, Any]) -> dict[str, Any]:
        """Return `form` as this server takes it."""
        spoken = {name: value for name, value in form.items() if name not in self.left_out}
        if self.sizes:
            width, height = map(int, form["size"].split("x"))
            spoken["size"] = nearest_size(sorted(self.sizes), width, height)
        return spoken

    def after(self, form: dict[str, Any], refusal: APIStatusError) -> "Dialect | None":
        """Return the dialect in which `form` may be accepted after this refusal; None if there is none."""
        if refusal.status_code not in _REFUSED or {str(refusal.code), str(refusal.type)} & BLOCKED:
            return None
        sent, text = self.form(form), str(refusal.body)[:_LONGEST_MESSAGE]
        named = {str(refusal.param)} & form.keys() or _named_in(text, form)
        left_out = self.left_out | named.intersection(_OPTIONAL)
        sizes = self.sizes
        if "size" in named and not sizes:
            sizes = frozenset("x".join(pair) for pair in _SIZES.findall(text)) - {sent["size"]}
        learned = Dialect(left_out, sizes)
        return learned if learned.form(form) != sent else None


def _named_in(text: str, form: dict[str, Any]) -> set[str]:
    """Return which parameters of `form` a text names; a short name counts only in quotes."""
    found = {name for name in form if re.search(rf"(?<![\w-]){name}(?![\w-])", text)}
    return {name for name in found if len(name) > 3 or re.search(rf"['\"`]{name}\\?['\"`]", text)}
