"""The table of rules."""

from typing import Final

from extproc.mesh.lint import (
    field_rules,
    filter_rules,
    logger_rules,
    patch_rules,
    retry_rules,
    routing_rules,
    settings_rules,
    stripper_rules,
)

RULES: Final = (
    *retry_rules.RULES,
    *routing_rules.RULES,
    *filter_rules.RULES,
    *stripper_rules.RULES,
    *patch_rules.RULES,
    *logger_rules.RULES,
    *field_rules.RULES,
    *settings_rules.RULES,
)
