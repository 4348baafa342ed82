"""The rungs of the ladder. Concrete backends know nothing of each other, nor of the router."""
