"""Data that ships with the product: profiles; no code."""
