"""This folder goes to the front of a child's `sys.path`; then `import hailo_platform` finds us.

What is below runs on Python 3.9 to 3.13 with numpy 1.24 to 2.x and onnxruntime, nothing else.
"""
