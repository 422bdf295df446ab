"""The routing benchmark: rules side by side in the simulator, with the marks they have to meet."""
