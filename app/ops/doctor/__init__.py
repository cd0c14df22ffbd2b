"""Examines settings, bucket and cache: what `flask bucket doctor` runs."""
