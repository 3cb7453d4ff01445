"""Metrics for Prometheus, and whether a process is healthy and ready, by HTTP (extra `metrics`)."""
