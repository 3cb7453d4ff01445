"""What lay on a log, kept elsewhere by the hour: written once, and read as the log is."""
