"""Sets up the bucket and the account around it, over boto3."""
