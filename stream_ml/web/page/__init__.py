"""The live page: the views of a log as HTML, made once for all viewers and sent as they change."""
