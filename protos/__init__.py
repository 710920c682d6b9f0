"""Our own gRPC interfaces, and how their Python code is made."""
