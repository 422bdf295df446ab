"""The simulator against a real cluster, with parameters measured from it."""
