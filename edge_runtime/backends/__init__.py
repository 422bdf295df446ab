"""What computes: one contract (`base`) and its implementations."""
