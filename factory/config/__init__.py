"""Settings and presets of the line, and their YAML."""
