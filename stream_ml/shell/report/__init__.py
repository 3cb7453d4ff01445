"""What a run has shown, in text and plots."""
