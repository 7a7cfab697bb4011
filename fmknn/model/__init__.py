"""What was learned, and what it means."""
