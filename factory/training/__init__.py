"""Turntables of real meshes to weights."""
