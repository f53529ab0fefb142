"""What was measured, and what it means. Knows nothing of train/."""
