"""MLPerf's load generator in front of the gateway."""
