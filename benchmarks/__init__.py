"""How good, how fast and how cheap each rung is, measured through the public API: ``vision bench``."""
