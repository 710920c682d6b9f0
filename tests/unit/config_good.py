"""A sound settings file that has everything, and ways to spoil it."""

import copy
from collections.abc import Mapping
from typing import Any, Final

import yaml

from extproc.config.loader import ConfigError, Loaded, load

HASH: Final = "0123456789abcdef" * 4
GONE: Final = object()

GOOD: Final[dict[str, Any]] = {
    "version": 1,
    "listen": {"address": "127.0.0.1", "port": 50051},
    "identity": [
        {"jwt_claim": "tenant"},
        {"spiffe": "^spiffe://[^/]+/ns/(?P<tenant>[^/]+)/"},
        {"api_key": {"header": "authorization", "scheme": "Bearer", "file": "keys.yaml"}},
        {"header": "x-tenant-id"},
    ],
    "unknown_tenant": "reject",
    "unknown_model": "small",
    "models": {
        "large": {
            "encoding": "o200k_base",
            "scale": 1.25,
            "context_tokens": 8192,
            "output_tokens_max": 4096,
            "output_tokens_expected": 700,
            "served_by": ["large-adapter"],
            "usd_per_million": {"input": 30, "cached_input": 0.1, "output": 60},
        },
        "small": {"encoding": "llama3", "context_tokens": 4096, "output_tokens_max": 1024},
    },
    "tiers": {
        "premium": {"model": "large", "priority": 0, "downgrade_to": "default"},
        "default": {"model": "small", "priority": 2},
    },
    "plans": {
        "gold": [{"tier": "premium"}],
        "tin": [
            {
                "when": {
                    "complexity_above": 0.7,
                    "prompt_tokens_above": 100,
                    "models": ["large*"],
                    "paths": ["/v1/*"],
                    "headers": {"x-team": "research-*"},
                    "stream": True,
                    "tools": False,
                    "images": False,
                },
                "tier": "premium",
            },
            {"tier": "default"},
        ],
    },
    "tenants": {
        "acme": {
            "plan": "gold",
            "budgets": [
                {"id": "minute", "limit": 60000, "unit": "tokens", "window": {"seconds": 60}},
                {
                    "id": "month",
                    "limit": 0.1,
                    "unit": "usd",
                    "window": {"calendar": "month", "timezone": "Asia/Shanghai"},
                    "on_exhausted": "downgrade",
                    "reserve": "maximum",
                    "warn_at": [0.8, 0.95],
                    "models": ["la*"],
                    "tiers": ["premium"],
                },
                {"id": "calls", "limit": 20, "unit": "concurrent_requests"},
            ],
        },
        "initech": {"plan": "tin"},
    },
    "complexity": {"prompt_tokens": {"weight": 0.7, "full_at": 4000}},
    "ledger": {"kind": "memory", "reservation_seconds": 900},
    "telemetry": {"audit": "off"},
    "rewrite_model": True,
    "limits": {"request_body_bytes": 8388608, "prompt_exact_bytes": 262144, "tenants": 100},
}

FILES: Final = {"keys.yaml": f"{HASH}: acme\n"}


def spoiled(changes: Mapping[str, object]) -> dict[str, Any]:
    """GOOD with each setting `a/0/b` set to its new value, or taken away where that is GONE."""
    raw = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *way, last = (int(step) if step.isdigit() else step for step in path.split("/"))
        place: Any = raw
        for step in way:
            place = place[step]
        if value is GONE:
            del place[last]
        elif isinstance(place, list) and last == len(place):
            place.append(value)
        else:
            place[last] = value
    return raw


def text_of(raw: object) -> str:
    text: str = yaml.dump(raw, Dumper=yaml.CSafeDumper, sort_keys=False)
    return text


def read(text: str, files: Mapping[str, str] = FILES) -> Loaded:
    def read_file(name: str) -> str:
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory", name)
        return files[name]

    return load(text, read_file=read_file)


def problems_in(text: str, files: Mapping[str, str] = FILES) -> list[str]:
    try:
        read(text, files)
    except ConfigError as error:
        return [str(problem) for problem in error.problems] or ["refused without a word"]
    return []


def problems_with(**changes: object) -> list[str]:
    return problems_in(text_of(spoiled(changes)))
