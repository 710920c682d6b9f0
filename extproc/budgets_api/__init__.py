"""Generated from `protos/llm_extproc/budgets/v1/budgets.proto`; see `protos/generate.py`."""
