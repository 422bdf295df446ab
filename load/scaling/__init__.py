"""The scaling benchmark: rules side by side in a simulator, with the marks they have to meet."""
