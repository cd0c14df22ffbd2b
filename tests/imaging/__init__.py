"""Tests of `app.imaging`; `samples` generates most of the images."""
