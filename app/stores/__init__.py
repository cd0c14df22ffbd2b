"""The stores that can keep the images: a local directory, S3, or a custom store."""
