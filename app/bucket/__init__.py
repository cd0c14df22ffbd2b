"""What `flask bucket …` does to the bucket and the account around it, over boto3."""
