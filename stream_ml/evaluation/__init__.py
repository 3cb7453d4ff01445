"""How good the answers were: scores from stored predictions, and what they are held against."""
