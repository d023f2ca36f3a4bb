"""The pages that show a study's best network at work."""
