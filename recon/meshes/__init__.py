"""Read triangle meshes of files, and find what of them is seen."""
