"""What is watched of the data: summaries of blocks of time, references, tests, a diagnosis."""
