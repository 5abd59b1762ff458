"""Store bytes in local folders and on S3."""
