"""Finished runs to one published data set: merge, choose, deduplicate, split, write shards, describe."""
