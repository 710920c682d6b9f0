"""What people see of finished requests: metrics, spans, audit lines, the last few minutes.

Each observer takes a `Summary` and keeps its own books. None of them can fail a request or a
settlement: they are told after the commit.
"""
