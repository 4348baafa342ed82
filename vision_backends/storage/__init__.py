"""Where answers, the ledger and the state of the gates are kept: in memory or in one SQLite file."""
