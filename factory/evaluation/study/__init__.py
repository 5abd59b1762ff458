"""Make pages for human raters and keep their answers."""
