"""Tests for `app.imaging`. `samples` generates most of the images."""
