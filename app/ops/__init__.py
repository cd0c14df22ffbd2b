"""What operators run: the command line, the bucket's setup, doctor and costs."""
