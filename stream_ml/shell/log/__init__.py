"""What a log promises, read whole and to its end, and the embedded one: a file of SQLite."""
