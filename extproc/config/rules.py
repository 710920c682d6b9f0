"""Whether rules, identities and addresses can do what they say."""

import re
import warnings
from collections.abc import Iterator
from typing import Final

from extproc.config.problems import UNKNOWN_KEY, Finding, Steps, listed, quoted
from extproc.config.settings import BudgetApi, Settings
from extproc.exchange.names import REQUEST_HEADERS, TENANT
from extproc.policy.identity import IdentitySource
from extproc.policy.tiers import Condition, Rule

_ADDRESS = re.compile(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]")
_COLLECTOR: Final = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_SOURCES: Final = IdentitySource.__struct_fields__
_GLOBS: Final = ("models", "paths")


def check_rules(settings: Settings) -> Iterator[Finding]:
    """Find rules that never apply or always fail, and sources of identity that yield nothing."""
    yield from _listen(settings)
    yield from _telemetry(settings)
    yield from _budget_api(settings.budget_api)
    if not settings.identity:
        message = f"empty: nobody could be told; name one of {listed(_SOURCES)}"
        yield Finding(("identity",), message)
    for number, source in enumerate(settings.identity):
        yield from _source(source, ("identity", number))
    for name, rules in settings.plans.items():
        yield from _plan(rules, ("plans", name))


def _listen(settings: Settings) -> Iterator[Finding]:
    for name, listen in (
        ("listen", settings.listen),
        ("admin", settings.admin),
        ("budget_api", settings.budget_api),
    ):
        if listen is not None and not _ADDRESS.fullmatch(listen.address):
            message = 'expected an address or a host name without a port; IPv6 as in "[::]"'
            yield Finding((name, "address"), message)


def _budget_api(wanted: BudgetApi | None) -> Iterator[Finding]:
    if wanted is None:
        return
    if not (wanted.loopback or wanted.token_file or wanted.identities):
        message = "nobody may use it: allow loopback, or give a token_file or identities"
        yield Finding(("budget_api",), message)
    if bool(wanted.certificate_file) != bool(wanted.key_file):
        message = "certificate_file and key_file go together"
        yield Finding(("budget_api", "certificate_file"), message)
    if wanted.client_ca_file and not wanted.certificate_file:
        yield Finding(("budget_api", "client_ca_file"), "needs certificate_file and key_file")
    if wanted.identities and not wanted.client_ca_file:
        message = "need client_ca_file: without it, no client shows a certificate"
        yield Finding(("budget_api", "identities"), message)


def _telemetry(settings: Settings) -> Iterator[Finding]:
    wanted = settings.telemetry
    if wanted.spans is not None and not _COLLECTOR.fullmatch(wanted.spans):
        message = 'expected a collector such as "http://collector:4317"; https:// speaks TLS'
        yield Finding(("telemetry", "spans"), message)
    if not wanted.audit:
        message = 'empty: expected "stdout", "off" or a file'
        yield Finding(("telemetry", "audit"), message)


def _source(source: IdentitySource, at: Steps) -> Iterator[Finding]:
    given = [name for name in _SOURCES if getattr(source, name) is not None]
    needs = (*((*at, name) for name in _SOURCES), (*at, UNKNOWN_KEY))
    if not given:
        yield Finding(at, f"says nothing; expected one of {listed(_SOURCES)}", needs)
    elif len(given) > 1:
        message = f"expected one source, got {listed(given)}; make each its own item of the list"
        yield Finding(at, message, needs)
    if source.jwt_claim == "":
        yield Finding((*at, "jwt_claim"), "empty; expected the name of a claim")
    if source.spiffe is not None:
        yield from _spiffe(source.spiffe, (*at, "spiffe"))
    if source.header is not None and source.header != TENANT:
        yield from _own_header(source.header, (*at, "header"))
    if source.api_key is not None:
        yield from _own_header(source.api_key.header, (*at, "api_key", "header"))


def _spiffe(pattern: str, at: Steps) -> Iterator[Finding]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            groups = re.compile(pattern).groupindex
    except (re.error, OverflowError, RecursionError) as error:
        why = str(error).partition("'")[0].strip()  # From the quote on it repeats the file.
        yield Finding(at, f"no regular expression: {why}")
        return
    if "tenant" not in groups:
        yield Finding(at, "names no tenant: it needs a group as in (?P<tenant>[^/]+)")


def _own_header(header: str, at: Steps) -> Iterator[Finding]:
    """A header that we set is stripped before we look: no client's value arrives in it."""
    if header in REQUEST_HEADERS:
        message = f"{quoted(header)} is set by this filter and stripped from requests; take another"
        yield Finding(at, message)


def _plan(rules: tuple[Rule, ...], at: Steps) -> Iterator[Finding]:
    if not rules:
        yield Finding(at, "empty; expected at least a rule such as {tier: default}")
        return
    for number, rule in enumerate(rules):
        when = (*at, number, "when")
        if rule.when is not None:
            yield from _condition(rule.when, when)
        elif number + 1 < len(rules):
            message = "always applies: no rule behind it is reached; give it a `when` or move it"
            yield Finding((*at, number), message, (when,))
    last = (*at, len(rules) - 1)
    if rules[-1].when not in (None, Condition()):
        message = "the last rule must apply to all that is left: add a rule without `when`"
        yield Finding((*last, "when"), message)


def _condition(when: Condition, at: Steps) -> Iterator[Finding]:
    if when == Condition():
        fields = Condition.__struct_fields__
        needs = (*((*at, name) for name in fields), (*at, UNKNOWN_KEY))
        yield Finding(at, "asks nothing; leave `when` out", needs)
    for name in _GLOBS:
        if getattr(when, name) == ():
            yield Finding((*at, name), "empty: the rule never applies; leave it out")
    for header in when.headers or ():
        if header != header.lower():
            message = f"names of headers are in lower case; write {quoted(header.lower())}"
            yield Finding((*at, "headers", header), message)
