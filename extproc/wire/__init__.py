"""Protobuf, and nothing but: Envoy's messages become events, our actions become messages."""
