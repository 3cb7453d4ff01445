"""The server: an HTTP API over the client and the views of a log, on FastAPI (extra `web`)."""
