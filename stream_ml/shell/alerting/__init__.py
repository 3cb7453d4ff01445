"""Alerts delivered to people: posted to webhooks, handed to commands, each at least once."""
