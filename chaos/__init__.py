"""Proof of the books: everything is killed, stopped and ended, and nothing is lost.

    make chaos          .venv/bin/python -m chaos [--seed N]

The last line of its output is one line of JSON; docs/operations.md says what it means.
"""
