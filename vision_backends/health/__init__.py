"""Who may be asked now, for how long, and at what expense."""
