"""The gateway: the Open Inference Protocol in front, routing behind."""
