"""Turntables of meshes."""
