"""Views of a log that workers are at work on: typed answers to questions; nothing here prints."""
