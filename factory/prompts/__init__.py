"""What comes in: prompt tables, rows, pictures, suites."""
