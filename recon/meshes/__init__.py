"""Triangle meshes of files: reading, and what of them is seen."""
