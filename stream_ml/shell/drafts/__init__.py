"""Declarations drafted from a file: what its columns may be for, and the Python that says so."""
