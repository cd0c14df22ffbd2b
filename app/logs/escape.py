"""Text from outside, made fit for a line of the log."""


def escaped(text: str) -> str:
    """`text` without line breaks, escape sequences and whatever else a terminal or a reader acts on."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
