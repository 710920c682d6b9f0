"""Audit lines read back: lost ledgers rebuilt, and months compared with invoices."""
