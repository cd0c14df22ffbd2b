"""Where images are kept: a local directory, S3, or a store of one's own."""
