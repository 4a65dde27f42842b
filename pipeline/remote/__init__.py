"""Sets that are not on this machine."""
