"""Keep what is done, by commit records, keys, snapshots, lease, sweep, schemas and run identity."""
