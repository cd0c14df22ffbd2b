"""Tests of `app.imaging`; `samples` makes the images that they are about."""
