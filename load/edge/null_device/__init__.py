"""A Hailo binding with a device that takes no time: what remains is the accelerator host's own."""
