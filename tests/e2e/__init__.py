"""Tests on a real cluster, started by the command line as a user would."""
