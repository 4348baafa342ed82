"""Settings: what can be configured, how a table is checked, and what its values have to look like."""
