"""Each model's count of one prompt: tiers may be of models that read it differently."""

from collections.abc import Mapping

from extproc.llm.prompt import PromptCount, TextCounter, count_prompt
from extproc.llm.request import LlmRequest
from extproc.policy.models import Model


class Counts:
    """The counts of one request, each made once, when it is asked for."""

    def __init__(
        self, models: Mapping[str, Model], request: LlmRequest, counter: TextCounter
    ) -> None:
        self._models = models
        self._request = request
        self._counter = counter
        self._found: dict[str, PromptCount] = {}

    def of(self, name: str) -> PromptCount:
        """Count the prompt as the model of this name will."""
        found = self._found.get(name)
        if found is None:
            model = self._models[name]
            found = self._found[name] = count_prompt(
                self._request,
                self._counter,
                model=name,
                encoding=model.encoding,
                scale=model.scale,
            )
        return found
