"""What a finished study is worth, why, and what to try next."""
