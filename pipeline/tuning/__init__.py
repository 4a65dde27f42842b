"""Threads, queue depth and engines, by rule or by measuring."""
