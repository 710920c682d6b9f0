"""The rules in force: one reference, swapped when the settings or what was learnt change."""

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import structs

from extproc.config.loader import Loaded
from extproc.exchange import names
from extproc.exchange.machine import Rules
from extproc.policy.decide import Policy
from extproc.policy.experience import Experience, corrected, scale_correction
from extproc.policy.grants import Grant, raised
from extproc.policy.tenants import Tenant


class Attempt(NamedTuple):
    """A try to take over a changed file; without `problems`, it is in force."""

    at: float
    problems: tuple[str, ...] = ()


class Rulebook:
    """`rules` are those in force now; whoever begins something keeps what it began with."""

    def __init__(
        self, loaded: Loaded, known: Mapping[str, Experience] | None = None, *, since: float = 0.0
    ) -> None:
        self.loaded = loaded
        self.since = since
        """When what is in force was taken over, in seconds since 1970."""
        self.last_attempt: Attempt | None = None
        self.needs_restart: tuple[str, ...] = ()
        """Settings, as `$.path`, that have changed in the file and can't while we live."""
        self._known: Mapping[str, Experience] = known or {}
        self.grants: tuple[Grant, ...] = ()
        """Those that are added to limits now."""
        self._unraised: Mapping[str, Tenant] = loaded.settings.tenants
        self._tenants: Mapping[str, Tenant] = self._unraised
        self.rules = rules_of(loaded, self._known)

    def take(self, loaded: Loaded, at: float, needs_restart: tuple[str, ...] = ()) -> None:
        """Decide by other settings from now on."""
        rules = self._rules_of(loaded)
        self.loaded, self.rules = loaded, rules
        self.since, self.last_attempt, self.needs_restart = at, Attempt(at), needs_restart

    def refuse(self, problems: tuple[str, ...], at: float) -> None:
        """Remember why other settings were not taken; nothing else changes."""
        self.last_attempt = Attempt(at, problems)

    def learn(self, known: Mapping[str, Experience]) -> None:
        """Decide from now on with what finished requests have taught."""
        self._known = dict(known)
        self._renew()

    def grant(self, grants: tuple[Grant, ...]) -> None:
        """Decide from now on with these grants and no others."""
        if grants != self.grants:
            self.grants = grants
            self._tenants = raised(self._unraised, grants)
            self._renew()

    def _renew(self) -> None:
        self.rules = self._rules_of(self.loaded)

    def _rules_of(self, loaded: Loaded) -> Rules:
        rules = rules_of(loaded, self._known)
        if loaded.settings.tenants is not self._unraised:
            self._unraised = loaded.settings.tenants
            self._tenants = raised(self._unraised, self.grants)
        return structs.replace(rules, policy=rules.policy._replace(tenants=self._tenants))

    def correction(self, model: str) -> float:
        """What estimates of this model's prompts are multiplied by at the moment."""
        models = self.loaded.settings.models
        if model not in models or model not in self._known:
            return 1.0
        return scale_correction(models[model], self._known[model])


def rules_of(loaded: Loaded, known: Mapping[str, Experience] | None = None) -> Rules:
    """What exchanges are decided by, from what the file says and what was learnt."""
    settings = loaded.settings
    policy = Policy(
        identity=settings.identity,
        keys=loaded.keys,
        unknown_tenant=settings.unknown_tenant,
        unknown_model=settings.unknown_model,
        models=corrected(settings.models, known or {}),
        tiers=settings.tiers,
        plans=settings.plans,
        tenants=settings.tenants,
        complexity=settings.complexity,
    )
    return Rules(
        policy,
        rewrite_model=settings.rewrite_model,
        asks_for_usage=settings.meter == "lua",
        is_observed=settings.meter == names.OBSERVE,
        request_body_bytes=settings.limits.request_body_bytes,
    )
