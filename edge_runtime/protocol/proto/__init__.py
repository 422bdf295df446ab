"""The protocol's messages for gRPC: `inference.proto`, and what `generate.py` makes of it."""
