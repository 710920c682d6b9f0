"""Whether every name in the settings names something: tiers, models, plans and tenants."""

from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Final

from extproc.config.problems import Finding, Steps, meant, quoted
from extproc.config.settings import Settings
from extproc.policy.decide import COUNT_ONLY, DENY, REJECT
from extproc.policy.section import matches_any
from extproc.policy.tiers import Tier

_RESERVED: Final = (("tenants", (REJECT,)), ("models", (DENY, COUNT_ONLY)))


def check_names(settings: Settings) -> Iterator[Finding]:
    """Find names of nothing, names that mean something else, and tiers that lead in a circle."""
    yield from _reserved(settings)
    yield from _unknowns(settings)
    yield from _tiers(settings)
    yield from _plans(settings)
    yield from _tenants(settings)


def _reserved(settings: Settings) -> Iterator[Finding]:
    for section, words in _RESERVED:
        for word in words:
            if word in getattr(settings, section):
                yield Finding((section, word), "this word is taken: choose another name")


def _unknowns(settings: Settings) -> Iterator[Finding]:
    for kind, name, known, words in (
        ("tenant", settings.unknown_tenant, settings.tenants, (REJECT,)),
        ("model", settings.unknown_model, settings.models, (DENY, COUNT_ONLY)),
    ):
        if name not in words:
            yield from _absent(kind, name, known, at=(f"unknown_{kind}",), words=words)


def _absent(
    kind: str, name: str, known: Collection[str], *, at: Steps, words: tuple[str, ...] = ()
) -> Iterator[Finding]:
    """Find that `name` is none of the `known`, which stand in the section of that kind."""
    if name not in known:
        message = f"no {kind} named {quoted(name)}; {meant(name, chain(words, known))}"
        yield Finding(at, message, ((f"{kind}s",),))


def _tiers(settings: Settings) -> Iterator[Finding]:
    for name, tier in settings.tiers.items():
        yield from _absent("model", tier.model, settings.models, at=("tiers", name, "model"))
        if tier.downgrade_to is not None:
            at = ("tiers", name, "downgrade_to")
            yield from _absent("tier", tier.downgrade_to, settings.tiers, at=at)
    for circle in _circles(settings.tiers):
        way = " -> ".join((*circle, circle[0]))
        needs = tuple(("tiers", name, "downgrade_to") for name in circle)
        yield Finding(needs[0], f"leads in a circle: {way}", needs)


def _circles(tiers: Mapping[str, Tier]) -> Iterator[tuple[str, ...]]:
    """Find each circle once."""
    seen: set[str] = set()
    for first in tiers:
        way: list[str] = []
        name: str | None = first
        while name is not None and name in tiers and name not in seen:
            seen.add(name)
            way.append(name)
            name = tiers[name].downgrade_to
        if name in way:
            yield tuple(way[way.index(name) :])


def _plans(settings: Settings) -> Iterator[Finding]:
    for name, rules in settings.plans.items():
        for number, rule in enumerate(rules):
            at = ("plans", name, number, "tier")
            yield from _absent("tier", rule.tier, settings.tiers, at=at)


def _tenants(settings: Settings) -> Iterator[Finding]:
    for name, tenant in settings.tenants.items():
        yield from _absent("plan", tenant.plan, settings.plans, at=("tenants", name, "plan"))
        for number, budget in enumerate(tenant.budgets):
            at = ("tenants", name, "budgets", number)
            for index, tier in enumerate(budget.tiers or ()):
                yield from _absent("tier", tier, settings.tiers, at=(*at, "tiers", index))
            for index, glob in enumerate(budget.models or ()):
                yield from _matchless(glob, settings, (*at, "models", index))


def _matchless(glob: str, settings: Settings, at: Steps) -> Iterator[Finding]:
    """A pattern that no model answers to is a budget that never counts: most likely a typo."""
    if not any(matches_any((glob,), model) for model in settings.models):
        message = f"{quoted(glob)} matches no model; {meant(glob, settings.models)}"
        yield Finding(at, message, (("models",),))
