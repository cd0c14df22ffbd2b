"""The S3 store, over boto3; works with AWS and with compatible servers (`AWS_ENDPOINT_URL_S3`)."""

from app.stores.s3.store import S3Store

__all__ = ["S3Store"]
