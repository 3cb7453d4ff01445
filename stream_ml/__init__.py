"""Streaming machine learning with continual learning."""
