"""An ext_proc service for LLM traffic: count the prompt, choose a tier, hold a budget.

The rooms, lowest first; each may use those below it (import-linter holds the order):
`llm` what LLM traffic means, `policy` what we decide, `exchange` one HTTP exchange without
I/O, `wire` protobuf, `tokens`, `ledger` and `config` the ports made real, `server` the gRPC
shell, `app` the composition root, `cli` the commands.
"""
