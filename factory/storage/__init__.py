"""Where bytes go: local folders, S3, tables."""
