"""What was seen: records and sessions on disk, tables made of them, checks that they must pass."""
