"""Stores keep the images: in a local directory, in S3, or in a custom store."""
