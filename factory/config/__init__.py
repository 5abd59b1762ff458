"""Set the line, by presets and YAML."""
