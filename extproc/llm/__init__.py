"""What LLM traffic means: paths, bodies, prompts, refusals. Pure, and knows no policy."""
