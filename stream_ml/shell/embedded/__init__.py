"""The loop in one process, on the embedded log."""
