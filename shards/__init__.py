"""Zips in, shards out: the set format in both directions. Needs neither torch nor DALI."""
