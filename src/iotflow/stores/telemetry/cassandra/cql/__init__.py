"""Versioned statements that make the tables; each file is applied once, in order of its number."""
