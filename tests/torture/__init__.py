"""Declarations and histories at random, and what must hold whatever they are.

`python -m tests.torture --minutes 20` makes worlds until the time is up; with `--seed N`, one.
"""
