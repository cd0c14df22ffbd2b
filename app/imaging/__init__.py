"""Check uploaded images against the limits, strip their metadata, and encode generated images."""
