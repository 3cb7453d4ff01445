"""What lies on a log as tables: a column for each member, of a type of its own."""
