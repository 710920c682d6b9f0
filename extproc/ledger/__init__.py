"""Budgets made real: who holds how much of what, until when."""
