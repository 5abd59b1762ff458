"""Public weights: which there are, how they get into a folder, and settings that take them from it."""
