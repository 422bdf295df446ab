"""The binding; callers import `hailo_platform` or `hailo_platform.pyhailort.pyhailort`."""
