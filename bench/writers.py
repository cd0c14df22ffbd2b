"""A writer process for `bench.bound`. Its threads fetch, upload and remove images as fast as they can."""

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from app.cache.disk_cache import DiskCache
from bench.bound import OBJECTS, THREADS
from bench.objects import facts_of, key_of, loading, proven

_SIZES = [random.Random(number).randrange(1_000, 110_000) for number in range(OBJECTS)]
_NOISE = random.Random(0).randbytes(110_000)
_UPLOAD_RATE, _FORGET_RATE = 0.2, 0.02
"""Thresholds of a random number: below the second, an image is removed; below the first, it is uploaded.

Otherwise it is fetched.
"""


def _work(cache: DiskCache, chance: random.Random, until: float, done: Counter[str]) -> None:
    while time.monotonic() < until:
        number = chance.randrange(OBJECTS)
        key = key_of(number)
        facts = facts_of(key, _SIZES[number])
        dice = chance.random()
        if dice < _FORGET_RATE:
            cache.forget(key)
            done["forgotten"] += 1
        elif dice < _UPLOAD_RATE:
            data = _NOISE[: facts.size]
            cache.store(proven(facts, data), data, cache.epoch(key))
            done["uploaded"] += 1
        else:
            cached = cache.fetch(key, loading(facts, _NOISE[: facts.size]))
            cached.body.close()
            done[cached.status.value] += 1


def main(arguments: Sequence[str]) -> None:
    """Run the writers: `python -m bench.writers ROOT BOUND SECONDS SEED`."""
    root, (bound, seconds, seed) = Path(arguments[0]), map(int, arguments[1:])
    cache = DiskCache(root, bound)
    until = time.monotonic() + seconds
    done = [Counter[str]() for _ in range(THREADS)]
    threads = [
        threading.Thread(target=_work, args=(cache, random.Random(f"{seed}-{n}"), until, done[n]))
        for n in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    total = sum(done, Counter[str]())
    sys.stdout.write(", ".join(f"{count:,} {what}" for what, count in sorted(total.items())) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
