"""A custom store's module that fails on import."""

raise RuntimeError("out of order")
