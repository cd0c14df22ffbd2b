"""Checks that uploaded bytes are an image within the limits, and cleans them."""
