"""Check that uploaded bytes are an image within the limits, strip metadata, and encode generated images."""
