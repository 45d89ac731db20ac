"""Judges a host, and a plan's needs on it."""
