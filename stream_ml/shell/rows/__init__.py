"""Files of events and labels, of every kind that is read, as records to publish."""
