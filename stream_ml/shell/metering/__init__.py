"""Counts, times and states of this process, for whoever scrapes it; nothing where nobody asked."""
