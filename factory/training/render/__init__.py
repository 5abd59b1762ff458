"""Render turntables of meshes."""
