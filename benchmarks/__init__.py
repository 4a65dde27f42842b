"""Times each hop, against its ceiling and its peers."""
