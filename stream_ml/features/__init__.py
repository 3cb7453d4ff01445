"""Placeholder: written with the first module of this room."""
