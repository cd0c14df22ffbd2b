"""The S3 store, for Amazon S3 and compatible servers."""
