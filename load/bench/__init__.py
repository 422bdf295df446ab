"""Serving benchmark: this gateway beside bare servers and other frameworks, in paired rounds."""
