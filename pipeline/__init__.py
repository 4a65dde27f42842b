"""Shards in, batches on the device out."""
