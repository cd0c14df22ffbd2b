"""Tools for operators: the command line, the bucket setup, the doctor, and checks of the settings."""
