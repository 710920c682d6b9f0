"""Counting made real: exact encoders, the per-text cache, the bounded estimate."""
