"""Models: what lines learn with, their snapshots and checkpoints, and when two are equal."""
