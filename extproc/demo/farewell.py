"""After the steps, with `--keep`: what to try, and what Envoy logs of it."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console

from extproc.demo.accesslog import AccessLog, Record
from extproc.demo.board import way, why

_LOOK_SECONDS: Final = 0.1

_TRY: Final = """
It goes on running. Ctrl-C ends it. Try, in another terminal:

  curl -i {url}/v1/chat/completions -H 'authorization: Bearer {initech}' \\
    -H 'content-type: application/json' \\
    -d '{{"model": "gpt-4", "messages": [{{"role": "user", "content": "Hello"}}]}}'

  curl -N {url}/v1/messages -H 'x-api-key: {acme}' -H 'x-adapter-pause-ms: 200' \\
    -H 'content-type: application/json' \\
    -d '{{"model": "claude-sonnet", "max_tokens": 50, "stream": true,
         "messages": [{{"role": "user", "content": "Hello"}}]}}'

{numbers}
  openai.OpenAI(base_url="{url}/v1", api_key="{acme}")
  anthropic.Anthropic(base_url="{url}", api_key="{acme}")

Keys:
"""


_NUMBERS: Final = """\
  curl {admin}/metrics                      what it costs, how fast, where the time goes
  {admin}/budgets                           the same as a page, for a browser
"""


def say_what_to_try(
    console: Console, url: str, admins: Sequence[str], keys: Mapping[str, str]
) -> None:
    """Print lines that work when they are pasted."""
    numbers = "".join(_NUMBERS.format(admin=admin) for admin in admins)
    text = _TRY.format(url=url, numbers=numbers, **keys)
    text += "".join(f"  {tenant:<9} {key}\n" for tenant, key in keys.items())
    text += "\nWhat Envoy logs:\n"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


async def watch(console: Console, log: AccessLog) -> None:
    """Print every request that Envoy logs, until interrupted."""
    while True:
        for record in log.read():
            console.print(_line(record), markup=False, highlight=False, soft_wrap=True)
        await asyncio.sleep(_LOOK_SECONDS)


def _line(record: Record) -> str:
    tenant = record.llm.get("tenant", "-")
    return (
        f"  {record.code} {tenant:<9} {record.path:<22} {way(record):<22}"
        f" {record.duration_ms:>6} ms  {why(record)}"
    )
