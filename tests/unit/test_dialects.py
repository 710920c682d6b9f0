"""extproc/llm/dialects.py"""

import pytest

from extproc.llm.dialects import PATHS, Dialect, dialect_of


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "respell",
    [
        pytest.param(lambda path: path, id="as it is"),
        pytest.param(lambda path: path + "?stream=1", id="with a query"),
        pytest.param(lambda path: path + "/", id="with a slash at its end"),
        pytest.param(lambda path: path.replace("/", "//"), id="with doubled slashes"),
        pytest.param(lambda path: path.replace("/v1", "/./v1"), id="with a dot segment"),
        pytest.param(lambda path: "/x/.." + path, id="with a step back"),
        pytest.param(lambda path: path.replace("v1", "%761"), id="with a percent-escape"),
        pytest.param(lambda path: path.replace("/v1/", "/v1%2F"), id="with an escaped slash"),
        pytest.param(lambda path: path.replace("/v1/", "/v1\\"), id="with a backslash"),
        pytest.param(str.upper, id="in capitals"),
        pytest.param(lambda path: path + ";a=b", id="with a parameter"),
    ],
)
def test_every_spelling_of_a_path_names_the_same_api(path: str, respell) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    assert dialect_of(respell(path)) is PATHS[path]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "*",
        "/v1",
        "/v1/files",
        "/v1/chatter",
        "/v2/messages",
        "/v1/responses/resp_1",
        "/v1/chat/completions/x",
    ],
)
def test_other_paths_are_no_calls(path: str) -> None:
    assert dialect_of(path) is None


def test_only_generating_apis_have_output() -> None:
    without = {dialect for dialect in Dialect if not dialect.has_output}

    assert without == {Dialect.OPENAI_EMBEDDINGS, Dialect.ANTHROPIC_COUNT_TOKENS}
