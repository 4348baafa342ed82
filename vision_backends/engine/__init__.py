"""What calls run on: one event loop in a thread of its own, and pools of threads for what would block it."""
