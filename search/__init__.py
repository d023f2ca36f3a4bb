"""What to try next, and who runs it."""
