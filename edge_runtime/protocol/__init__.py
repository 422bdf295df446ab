"""Open Inference Protocol v2: values, codecs and the two servers (REST and gRPC) over them."""
