"""The gRPC shell: thin. It moves messages between Envoy and an exchange and decides nothing."""
