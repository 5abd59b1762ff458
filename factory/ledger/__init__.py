"""What is done: commit records, keys, snapshots, lease, schemas, run identity."""
