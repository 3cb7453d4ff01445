"""The command line `stream-ml`: one small module a command, and what they share."""
