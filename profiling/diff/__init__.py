"""What changed between two traces or runs, and what the difference comes from."""
