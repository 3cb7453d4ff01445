"""Every figure in README comes from here."""
