"""extproc/llm/body.py"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.llm.body import (
    ITEMS_MAX,
    KEYS_MAX,
    NESTING_MAX,
    OPENINGS_MAX,
    JsonObject,
    Malformed,
    read_object,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=8), st.booleans(), st.sampled_from([None, 1]))
def test_every_span_holds_the_value_of_its_key(
    value: dict[str, object], ascii_: bool, indent: int | None
) -> None:
    data = json.dumps(value, ensure_ascii=ascii_, indent=indent).encode("utf-8", "surrogatepass")

    body = read_object(data)

    if isinstance(body, Malformed):
        assert "\\ud" in data.decode("utf-8", "replace") or "UTF-8" in body.reason
    else:
        assert {
            key: json.loads(data[start:end]) for key, (start, end) in body.spans.items()
        } == value


@given(st.lists(st.tuples(st.sampled_from("abc"), JSON), min_size=1, max_size=6))
def test_a_repeated_key_is_always_found(pairs: list[tuple[str, object]]) -> None:
    members = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs)
    data = ("{" + ", ".join(members) + "}").encode()

    body = read_object(data)

    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        assert isinstance(body, Malformed)
    elif isinstance(body, Malformed):
        assert "\\ud" in data.decode()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"a": 1, "a": 1}', id="the same value"),
        pytest.param(b'{"a": 1, "\\u0061": 2}', id="an escaped spelling"),
        pytest.param(
            b'{"a": {"z": 0}, "b": 1, "a": {"b": 1}}', id="a value that looks like the rest"
        ),
        pytest.param(
            b'{"m":1,"model":12,"m":{"z":0,       "model":5}}',
            id="crafted so that lengths alone would agree",
        ),
    ],
)
def test_a_key_that_stands_twice_is_refused(data: bytes) -> None:
    assert read_object(data) == Malformed("$", "a key stands twice")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "the body is empty; expected a JSON object", id="empty"),
        pytest.param(b" \n", "the body is empty; expected a JSON object", id="blank"),
        pytest.param(b"[]", "Expected 'object', got 'array'", id="an array"),
        pytest.param(b"null", "Expected 'object', got 'null'", id="null"),
        pytest.param(b'{"a": NaN}', "not JSON: invalid character (byte 6)", id="NaN"),
        pytest.param(b'{"a": 1} 2', "not JSON: trailing characters (byte 10)", id="more after it"),
        pytest.param(b'{"a": "\xff"}', "invalid UTF-8 at byte 7", id="invalid UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"a": 1}', "not JSON: invalid character (byte 0)", id="a BOM"),
        pytest.param(
            b'{"a": ' + b"[" * 10_000, "nested deeper than 64 levels", id="a stack of arrays"
        ),
    ],
)
def test_what_is_not_one_json_object_is_refused(data: bytes, reason: str) -> None:
    assert read_object(data) == Malformed("$", reason)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_is_allowed_up_to_its_limit(opening: bytes) -> None:
    def nested(levels: int) -> bytes:
        closing = b"]" if opening == b"[" else b"}"
        return b'{"x": ' + opening * (levels - 1) + b"1" + closing * (levels - 1) + b"}"

    assert isinstance(read_object(nested(NESTING_MAX)), JsonObject)
    assert isinstance(read_object(nested(NESTING_MAX + 1)), Malformed)


def test_brackets_in_strings_are_no_nesting() -> None:
    text = '[{"' * 1000 + "\\"

    assert isinstance(read_object(json.dumps({"a": text, "b": [[]] * 100}).encode()), JsonObject)


def test_keys_have_a_limit() -> None:
    data = json.dumps({str(number): 0 for number in range(KEYS_MAX + 1)}).encode()

    assert read_object(data) == Malformed("$", f"more than {KEYS_MAX} keys")


@pytest.mark.parametrize(
    ("item", "limit", "what"),
    [
        pytest.param(b"{}", OPENINGS_MAX, "arrays and objects", id="objects"),
        pytest.param(b"1", ITEMS_MAX, "items", id="numbers"),
    ],
)
def test_structure_has_a_limit(item: bytes, limit: int, what: str) -> None:
    def listed(items: int) -> bytes:
        return b'{"x": [' + b",".join([item] * items) + b"]}"

    # The body itself and its array are openings too; n items have n - 1 commas.
    fits = limit - 2 if item == b"{}" else limit + 1
    assert isinstance(read_object(listed(fits)), JsonObject)
    assert read_object(listed(fits + 1)) == Malformed("$", f"more than {limit} {what}")


def test_commas_in_a_prompt_are_no_items() -> None:
    assert isinstance(read_object(json.dumps({"a": "," * (ITEMS_MAX + 9)}).encode()), JsonObject)


@given(st.text(alphabet='"\\\\[]{},:a', max_size=40))
def test_no_quoting_hides_structure_from_its_limit(text: str) -> None:
    """Seventy levels stay seventy levels, whatever strings stand beside them."""
    deep = "[" * 70 + "]" * 70
    data = f'{{"s": {json.dumps(text)}, "x": {deep}}}'.encode()

    assert isinstance(read_object(data), Malformed)
