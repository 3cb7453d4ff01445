"""Every figure in README and docs/figures.md comes from here."""
