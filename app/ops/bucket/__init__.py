"""Set up the S3 bucket and the server's IAM user, with boto3."""
