"""Sharded turntables: index, columns, order, row groups."""
