"""The stages: predict, join, learn, evaluate. Each is one fold; its header states its rules."""
