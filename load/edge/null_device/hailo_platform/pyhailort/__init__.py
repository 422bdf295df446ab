"""Where the vendor keeps the errors."""
