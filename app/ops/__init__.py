"""For operators: the command line, the setup of the bucket, the doctor, and checks of the settings."""
