"""Read sharded turntables, by index, schema, order and row groups."""
