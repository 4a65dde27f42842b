"""What this machine has, and what the loader would choose on it."""
