"""Ray Serve applications: the gateway and the inference deployments behind it."""
