"""Making splits that do not leak, and auditing those that others made."""
