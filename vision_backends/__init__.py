"""Graceful degradation for vision models."""
