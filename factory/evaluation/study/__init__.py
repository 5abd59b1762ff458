"""Pages for human raters and their answers."""
