"""Progress messages on standard error, so that standard output contains only results."""

import sys
import time

_began = time.monotonic()


def say(text: str) -> None:
    """Write the text with the time since the start, in minutes and seconds."""
    minutes, seconds = divmod(int(time.monotonic() - _began), 60)
    sys.stderr.write(f"[{minutes:02}:{seconds:02}] {text}\n")
    sys.stderr.flush()
