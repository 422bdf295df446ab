"""A real cluster whose edge box goes away, and then becomes slow."""
