"""Settings, keys and the declaration: what a process is started with."""
