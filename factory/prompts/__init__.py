"""Read what comes in, as prompt tables, rows, pictures and suites."""
