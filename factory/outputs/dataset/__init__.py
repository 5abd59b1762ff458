"""Publish finished runs as one data set: merge, choose, deduplicate, split, write shards, describe."""
