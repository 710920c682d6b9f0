"""What finished requests teach about a model: how far estimates are off, how long answers are.

One `Experience` a model, of fixed size. What was learnt corrects two things, within bounds: the
length that an answer is expected to have where the request names no maximum, and the `scale` of
a model that has one. A model without a scale is counted exactly; its ratio is only shown.
"""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from extproc.policy.models import Model

ANSWERS_MIN: Final = 20
"""Before so many answers nothing is corrected."""

WEIGHT_MIN: Final = 0.02
"""Of one answer: the last fifty or so count."""

RATIO_MIN: Final = 0.5
RATIO_MAX: Final = 3.0

_Ratio = Annotated[float, msgspec.Meta(ge=RATIO_MIN, le=RATIO_MAX)]
_Number = Annotated[int, msgspec.Meta(ge=0)]


class Experience(msgspec.Struct, frozen=True):
    """Moving averages over a model's answers whose usage the provider told.

    `prompt_ratio` is actual to estimated prompt tokens, the estimate uncorrected;
    `output_tokens` those of answers whose request named no maximum.
    """

    answers: _Number = 0
    prompt_ratio: _Ratio = 1.0
    outputs: _Number = 0
    output_tokens: Annotated[float, msgspec.Meta(ge=0)] = 0.0

    def correction(self) -> float:
        """What the estimate is to be multiplied by; 1 until enough is known."""
        return self.prompt_ratio if self.answers >= ANSWERS_MIN else 1.0


def after(
    before: Experience, *, estimated: int, actual: int, output_tokens: int | None
) -> Experience:
    """Take one answer into account.

    `estimated` is the count before any correction; 0 tells nothing. `output_tokens` is None
    where the request named a maximum, which says how long the answer was allowed to be and not
    how long it would have been.
    """
    answers, ratio = before.answers, before.prompt_ratio
    if estimated and actual:
        answers += 1
        ratio = _bounded(_mixed(ratio, _bounded(actual / estimated), answers))
    outputs, expected = before.outputs, before.output_tokens
    if output_tokens is not None:
        outputs += 1
        expected = _mixed(expected, output_tokens, outputs)
    return Experience(answers, ratio, outputs, expected)


def corrected(models: Mapping[str, Model], known: Mapping[str, Experience]) -> dict[str, Model]:
    """The same models, with what was learnt about them."""
    return {
        name: _corrected(model, known[name]) if name in known else model
        for name, model in models.items()
    }


def scale_correction(model: Model, experience: Experience) -> float:
    """What `corrected` multiplies the model's scale by."""
    return 1.0 if model.scale == 1.0 else experience.correction()


def _corrected(model: Model, experience: Experience) -> Model:
    expected = model.output_tokens_expected
    if experience.outputs >= ANSWERS_MIN:
        expected = max(1, round(experience.output_tokens))
    return msgspec.structs.replace(
        model,
        scale=model.scale * scale_correction(model, experience),
        output_tokens_expected=expected,
    )


def _mixed(before: float, value: float, count: int) -> float:
    return before + (value - before) * max(WEIGHT_MIN, 1 / count)


def _bounded(ratio: float) -> float:
    return min(RATIO_MAX, max(RATIO_MIN, ratio))
