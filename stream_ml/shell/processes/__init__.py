"""Processes that work, stop, tell how far they are and read lines as they come."""
