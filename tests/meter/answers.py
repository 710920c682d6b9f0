"""Answers as providers give them, and hostile ones, with what a meter must note of each.

One table for both meters: `extproc/llm/sse.py`, and `istio/meter.lua` in real Envoys.
"""

from typing import NamedTuple

from extproc.llm.spotting import HOPS_MAX
from extproc.llm.sse import Seen

EVENTS = "text/event-stream"
JSON = "application/json"


class Answer(NamedTuple):
    """`numbers` are the tokens of prompt, completion and both, for the tags of a span."""

    name: str
    body: bytes
    usage: str = ""
    numbers: tuple[int, int, int] | None = None
    usage_start: str = ""
    events: int = 0
    error: str = ""
    content_type: str = EVENTS
    content_encoding: str = ""

    @property
    def seen(self) -> Seen:
        return Seen(self.usage, self.usage_start, self.events, len(self.body), self.error)


def events(*texts: str, end: str = "\n\n") -> bytes:
    return "".join(text + end for text in texts).encode()


def data(*texts: str, end: str = "\n\n") -> bytes:
    return events(*(f"data: {text}" for text in texts), end=end)


def named(*texts: str) -> bytes:
    """Events whose name is their type."""
    return events(*(f"event: {text.split(chr(34))[3]}\ndata: {text}" for text in texts))


CHAT_USAGE = (
    '{"prompt_tokens":19,"completion_tokens":3,"total_tokens":22,"prompt_tokens_details":'
    '{"cached_tokens":5,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}'
)
_CHAT = '{"id":"chatcmpl-9","object":"chat.completion.chunk","created":1,"model":"gpt-4",'
_NO_USAGE = ',"usage":null}'


def choice(delta: str, reason: str = "null") -> str:
    return (
        _CHAT
        + f'"choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}]'
    )


CHAT_WORDS = (
    choice('{"role":"assistant","content":"","refusal":null}'),
    choice('{"content":"He said \\"usage\\": {\\"prompt_tokens\\":1} \\\\"}'),
    choice('{"content":" h\u00e9llo \U0001f600"}'),
    choice("{}", '"stop"'),
)
CHAT_EXTRA = f'{_CHAT}"choices":[],"usage":{CHAT_USAGE}}}'
CHAT = data(*(word + _NO_USAGE for word in CHAT_WORDS), CHAT_EXTRA, "[DONE]")
CHAT_CUT = data(*(word + _NO_USAGE for word in CHAT_WORDS), "[DONE]")
"""What a client gets that did not ask for usage."""

_CHAT_NUMBERS = (19, 3, 22)

_SHORT_USAGE = '{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}'
_SHORT_WORD = '{"choices":[{"delta":{"content":"\u20ac\\""}}]}'
_SHORT_EXTRA = f'{{"choices":[],"usage":{_SHORT_USAGE}}}'
SHORT = data(_SHORT_WORD, _SHORT_EXTRA, "[DONE]")
SHORT_CUT = data(_SHORT_WORD, "[DONE]")

_OPENAI = (
    Answer("chat", CHAT, CHAT_USAGE, _CHAT_NUMBERS, events=3),
    Answer("chat, short", SHORT, _SHORT_USAGE, (7, 1, 8), events=1),
    Answer("chat without usage", data(*(word + "}" for word in CHAT_WORDS), "[DONE]"), events=3),
    Answer(
        "chat, tool calls",
        data(
            choice('{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"c1"}]}')
            + "}",
            choice('{"tool_calls":[{"index":0,"function":{"arguments":"{\\"usage\\": {}"}}]}')
            + "}",
            choice("{}", '"tool_calls"') + "}",
            _SHORT_EXTRA,
            "[DONE]",
        ),
        _SHORT_USAGE,
        (7, 1, 8),
        events=2,
    ),
    Answer(
        "Azure: filter results first, without choices",
        data(
            '{"choices":[],"created":0,"prompt_filter_results":[{"prompt_index":0}]}',
            CHAT_WORDS[1] + "}",
        ),
        events=1,
    ),
    Answer(
        "vLLM: usage in every event",
        data(
            *(
                f'{{"choices":[{{"index":0,"delta":{{"content":"x"}}}}],"usage":{{"prompt_tokens":4,'
                f'"total_tokens":{4 + n},"completion_tokens":{n}}}}}'
                for n in range(1, 41)
            ),
            "[DONE]",
        ),
        '{"prompt_tokens":4,"total_tokens":44,"completion_tokens":40}',
        (4, 40, 44),
        events=40,
    ),
    Answer(
        "completions",
        data(
            '{"object":"text_completion","choices":[{"text":"One","index":0}],"usage":null}',
            '{"object":"text_completion","choices":[{"text":" two","index":0}],"usage":null}',
            '{"object":"text_completion","choices":[{"text":"","finish_reason":"stop"}]}',
            f'{{"object":"text_completion","choices":[],"usage":{_SHORT_USAGE}}}',
            "[DONE]",
        ),
        _SHORT_USAGE,
        (7, 1, 8),
        events=2,
    ),
    Answer(
        "zero is a count",
        data('{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}'),
        '{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}',
        (0, 0, 0),
    ),
)

_RESPONSES_USAGE = (
    '{"input_tokens":36,"input_tokens_details":{"cached_tokens":0},"output_tokens":87,'
    '"output_tokens_details":{"reasoning_tokens":64},"total_tokens":123}'
)
_ECHO = (
    '"metadata":{"usage":"{\\"input_tokens\\":1}"},"tools":[{"type":"function","name":"t",'
    '"parameters":{"type":"object","properties":{"usage":{"type":"object","usage":{}},'
    '"response":{"usage":{"input_tokens":2}}}}}]'
)


def _responses(last: str, usage: str = _RESPONSES_USAGE) -> bytes:
    begun = f'"response":{{"id":"resp_1","status":"in_progress",{_ECHO},"usage":null}}}}'
    item = '"item_id":"msg_1","output_index":0,"content_index":0'
    return named(
        '{"type":"response.created","sequence_number":0,' + begun,
        '{"type":"response.in_progress","sequence_number":1,' + begun,
        f'{{"type":"response.content_part.added",{item},"part":{{"type":"output_text","text":""}}}}',
        f'{{"type":"response.output_text.delta",{item},"delta":"Hi \\"usage\\":{{"}}',
        f'{{"type":"response.output_text.delta",{item},"delta":" there"}}',
        f'{{"type":"response.output_text.delta",{item},"delta":""}}',
        f'{{"type":"response.output_text.done",{item},"text":"Hi there"}}',
        f'{{"type":"{last}","response":{{"id":"resp_1",{_ECHO},"usage":{usage},"user":null,'
        f'"output":[{{"usage":{{"input_tokens":3}}}}],{_ECHO}}}}}',
    )


_RESPONSES = (
    Answer(
        "Responses, completed",
        _responses("response.completed"),
        _RESPONSES_USAGE,
        (36, 87, 123),
        events=2,
    ),
    Answer(
        "Responses, incomplete",
        _responses("response.incomplete"),
        _RESPONSES_USAGE,
        (36, 87, 123),
        events=2,
    ),
    Answer("Responses, failed", _responses("response.failed", "null"), events=2),
    Answer(
        "Responses, the last event longer than what is kept",
        _responses("response.completed").replace(
            b'"user":null', b'"user":"' + b'u\\"' * 9_000 + b'"'
        ),
        _RESPONSES_USAGE,
        (36, 87, 123),
        events=2,
    ),
)

_START = (
    '{"input_tokens":25,"cache_creation_input_tokens":100,"cache_read_input_tokens":50,'
    '"output_tokens":1}'
)


def _messages(start: str, deltas: tuple[str, ...], end: str) -> bytes:
    return named(
        '{"type":"message_start","message":{"id":"msg_1","role":"assistant","content":[],'
        f'"usage":{start},"stop_reason":null}}}}',
        '{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}',
        '{"type": "ping"}',
        *(f'{{"type":"content_block_delta","index":0,"delta":{delta}}}' for delta in deltas),
        '{"type":"content_block_stop","index":0}',
        '{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        f'"usage":{end}}}',
        '{"type":"message_stop"}',
    )


_ANTHROPIC = (
    Answer(
        "Anthropic",
        _messages(
            '{"input_tokens":25,"output_tokens":1}',
            ('{"type":"text_delta","text":"Hello"}', '{"type":"text_delta","text":"!"}'),
            '{"output_tokens":15}',
        ),
        '{"output_tokens":15}',
        (25, 15, 40),
        '{"input_tokens":25,"output_tokens":1}',
        events=2,
    ),
    Answer(
        "Anthropic, cache and thinking",
        _messages(
            _START,
            (
                '{"type":"thinking_delta","thinking":"Hm"}',
                '{"type":"signature_delta","signature":"EqQB"}',
                '{"type":"input_json_delta","partial_json":"{\\"usage\\":{"}',
            ),
            '{"iterations":[{"output_tokens":9}],"x":{"input_tokens":1},"output_tokens":150}',
        ),
        '{"iterations":[{"output_tokens":9}],"x":{"input_tokens":1},"output_tokens":150}',
        (175, 150, 325),
        _START,
        events=3,
    ),
    Answer(
        "Anthropic, the last usage has all",
        _messages(
            '{"input_tokens":1,"output_tokens":1}',
            (),
            '{"input_tokens":30,"cache_read_input_tokens":5,"output_tokens":0}',
        ),
        '{"input_tokens":30,"cache_read_input_tokens":5,"output_tokens":0}',
        (35, 0, 35),
        '{"input_tokens":1,"output_tokens":1}',
    ),
    Answer(
        "Anthropic, only the start",
        named(f'{{"type":"message_start","message":{{"usage":{_START}}}}}'),
        "",
        (175, 1, 176),
        _START,
    ),
    Answer(
        "Anthropic, an error",
        named('{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'),
    ),
)


def _json(
    name: str,
    body: str,
    usage: str = "",
    numbers: tuple[int, int, int] | None = None,
    error: str = "",
) -> Answer:
    return Answer(name, body.encode(), usage, numbers, error=error, content_type=JSON)


_WHOLE = (
    _json(
        "JSON, chat",
        '{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"\\"usage\\":{}",'
        f'"usage":{{"prompt_tokens":1}}}}}}],"usage":{CHAT_USAGE},"system_fingerprint":null}}',
        CHAT_USAGE,
        _CHAT_NUMBERS,
    ),
    _json(
        "JSON, spaced out",
        '{\r\n  "choices": [],\r\n  "usage" :\t{\n    "prompt_tokens": 7,\n    '
        '"completion_tokens" : 1\n  }\r\n}\n',
        '{\n    "prompt_tokens": 7,\n    "completion_tokens" : 1\n  }',
        (7, 1, 8),
    ),
    _json(
        "JSON, completions",
        f'{{"choices":[{{"text":"Hi"}}],"usage":{_SHORT_USAGE}}}',
        _SHORT_USAGE,
        (7, 1, 8),
    ),
    _json(
        "JSON, Responses",
        f'{{"id":"resp_1",{_ECHO},"response":{{"usage":{{"input_tokens":4}}}},'
        f'"usage":{_RESPONSES_USAGE},"user":"x"}}',
        _RESPONSES_USAGE,
        (36, 87, 123),
    ),
    _json(
        "JSON, Anthropic",
        f'{{"type":"message","content":[{{"type":"text","text":"Hi"}}],"usage":{_START}}}',
        _START,
        (175, 1, 176),
    ),
    _json(
        "JSON, embeddings",
        '{"object":"list","data":[{"embedding":[0.1,-2e-5,3]}],'
        '"usage":{"prompt_tokens":8,"total_tokens":8}}',
        '{"prompt_tokens":8,"total_tokens":8}',
        (8, 0, 8),
    ),
    _json("JSON, token count", '{"input_tokens":14}'),
    _json("JSON, an error", '{"error":{"message":"no \\"usage\\"","usage":{"prompt_tokens":1}}}'),
    _json(
        "JSON, quotes and backslashes",
        '{"a":"\\"","b":"","c":"\\\\","d":"\\\\\\"","usage":{"prompt_tokens":1,"x":"}\\"}"}}',
        '{"prompt_tokens":1,"x":"}\\"}"}',
        (1, 0, 1),
    ),
    _json(
        "JSON, closed more than opened",
        ']}{"usage":{"prompt_tokens":1}}',
        '{"prompt_tokens":1}',
        (1, 0, 1),
    ),
    _json("JSON, null", '{"usage":null,"x":{"prompt_tokens":1}}'),
    _json("JSON, no object", '["usage",{"prompt_tokens":1}]'),
    _json("JSON, nothing", ""),
    _json("JSON, in a list", '[{"usage":{"prompt_tokens":1}}]'),
    _json(
        "JSON, `usage` is a value", '{"a":"usage","b":{"prompt_tokens":1},"c":["usage",{"p":1}]}'
    ),
    _json("JSON, `usage` is a number", '{"usage":5,"b":{"prompt_tokens":1}}'),
    _json("JSON, `message.usage`", '{"message":{"usage":{"input_tokens":1}}}'),
    _json(
        "JSON, twice",
        '{"usage":{"prompt_tokens":1},"x":[],"usage":{"prompt_tokens":2}}',
        '{"prompt_tokens":2}',
        (2, 0, 2),
    ),
    _json(
        "JSON, cut off behind usage",
        '{"usage":{"prompt_tokens":1},"choices":[{"mess',
        '{"prompt_tokens":1}',
        (1, 0, 1),
    ),
    _json("JSON, cut off in usage", '{"choices":[],"usage":{"prompt_tokens":1'),
)

_LONG = '{"prompt_tokens":1,"x":"' + "x" * 4_100 + '"}'
_HUGE = '{"prompt_tokens":99999999999999999999,"completion_tokens":-5,"total_tokens":1e400}'
_BIG_TEXT = ('\\"usage\\":{\\\\' + "n" * 1_000) * 5_000

_FRAMING = (
    Answer("CRLF", CHAT.replace(b"\n", b"\r\n"), CHAT_USAGE, _CHAT_NUMBERS, events=3),
    Answer("CR", SHORT.replace(b"\n", b"\r"), _SHORT_USAGE, (7, 1, 8), events=1),
    Answer(
        "line ends mixed",
        b"data: " + _SHORT_EXTRA.encode() + b"\r\n\n" + SHORT.replace(b"\n\n", b"\n\r\n"),
        _SHORT_USAGE,
        (7, 1, 8),
        events=1,
    ),
    Answer("byte order mark", b"\xef\xbb\xbf" + SHORT, _SHORT_USAGE, (7, 1, 8), events=1),
    Answer(
        "byte order mark before usage",
        b"\xef\xbb\xbf" + data(_SHORT_EXTRA),
        _SHORT_USAGE,
        (7, 1, 8),
    ),
    Answer("no space", SHORT.replace(b"data: ", b"data:"), _SHORT_USAGE, (7, 1, 8), events=1),
    Answer("no blank line at the end", data(_SHORT_EXTRA)[:-1], _SHORT_USAGE, (7, 1, 8)),
    Answer("no line end at the end", data(_SHORT_WORD)[:-2], events=1),
    Answer(
        "comments",
        b': "usage":{"prompt_tokens":3}\n\n: data: x\n' + SHORT + b': {"delta":{"a":1}}\n:\n\n',
        _SHORT_USAGE,
        (7, 1, 8),
        events=1,
    ),
    Answer(
        "a comment longer than what is kept",
        b": " + b'"delta":{"a' * 2_000 + b"\n" + SHORT,
        _SHORT_USAGE,
        (7, 1, 8),
        events=1,
    ),
    Answer(
        "other fields",
        b'id: {"usage":{"a":1}}\nretry: 3\ndata: ' + _SHORT_EXTRA.encode() + b"\nevent: x\n\n",
        _SHORT_USAGE,
        (7, 1, 8),
    ),
    Answer(
        "several data lines",
        b'data: {"choices":[],\ndata:"usage"\ndata: :{"prompt_tokens":\ndata: 4}\ndata: }\n\n',
        '{"prompt_tokens":\n 4}',
        (4, 0, 4),
    ),
    Answer(
        "several data lines, CRLF",
        b'event: x\r\ndata: {"choices":[],\r\ndata:"usage":{"prompt_tokens":\r\n'
        b"data: 4}\r\ndata: }\r\n\r\n",
        '{"prompt_tokens":\n 4}',
        (4, 0, 4),
    ),
    Answer("not data", b"dat: " + _SHORT_EXTRA.encode() + b"\n\nDATA: {}\n\n"),
    Answer("nothing", b""),
    Answer("cut off in usage", SHORT[: SHORT.index(b'"total')], events=1),
    Answer("only line ends", b"\n\r\n\r\n\n\n"),
    Answer(
        "its type has parameters",
        SHORT,
        _SHORT_USAGE,
        (7, 1, 8),
        events=1,
        content_type="Text/Event-Stream; charset=utf-8",
    ),
    Answer("encoded", b"\x1f\x8b" + SHORT, error="encoded", content_encoding="gzip"),
    Answer(
        "encoded as it is", SHORT, _SHORT_USAGE, (7, 1, 8), events=1, content_encoding="Identity"
    ),
)

_HOSTILE = (
    Answer(
        "usage in a choice",
        data('{"choices":[{"delta":{"content":"x"},"usage":{"prompt_tokens":9}}]}'),
        events=1,
    ),
    Answer(
        "usage of another's child",
        data('{"other":{"usage":{"prompt_tokens":9}},"response":[{"usage":{"prompt_tokens":9}}]}'),
    ),
    Answer(
        "usage behind a response",
        data('{"response":{"a":{"usage":{"a":1}}},"x":{"usage":{"a":2}},"usage":{"a":3}}'),
        '{"a":3}',
    ),
    Answer(
        "keys that begin or end alike",
        data(
            '{"usages":{"a":1},"xusage":{"a":2},"usage\\"":{"a":3},"usag":{"a":4},'
            '"response\\"":{"usage":{"a":5}},"responses":{"usage":{"a":6}}}'
        ),
    ),
    Answer(
        "usage of a response's brother and children",
        data(
            '{"response":{},"x":{"usage":{"a":1}}}',
            '{"message":{"response":{"usage":{"a":2}},"usage":[{"a":3}]},"usage":[{"a":4}]}',
        ),
    ),
    Answer(
        "a message in a response", data('{"response":{"message":{},"usage":{"a":3}}}'), '{"a":3}'
    ),
    Answer(
        "output far behind the beginning of a long event",
        data(
            '{"a":"'
            + "x" * 17_000
            + '","choices":[{"delta":{"content":"x"}}],"b":"'
            + "x" * 70_000
            + '"}'
        ),
    ),
    Answer("the key is in the middle of a text", data('{"a":"b\\"usage","c":{"d":1}}')),
    Answer("null after usage", data(_SHORT_EXTRA, '{"usage":null}'), _SHORT_USAGE, (7, 1, 8)),
    Answer("too long", data(f'{{"usage":{_LONG}}}'), error="usage_too_long"),
    Answer(
        "too long, then not",
        data(f'{{"usage":{_LONG}}}', _SHORT_EXTRA),
        _SHORT_USAGE,
        (7, 1, 8),
        error="usage_too_long",
    ),
    Answer(
        "as long as may be",
        data('{"usage":{"prompt_tokens":1,"x":"' + "x" * (4_096 - 26) + '"}}'),
        '{"prompt_tokens":1,"x":"' + "x" * (4_096 - 26) + '"}',
        (1, 0, 1),
    ),
    Answer(
        "garbled, then too long",
        data('{"usage":{"x":"\0"}}', f'{{"usage":{_LONG}}}'),
        error="usage_garbled",
    ),
    Answer("huge numbers", data(f'{{"usage":{_HUGE}}}'), _HUGE),
    Answer("NUL in usage", data('{"usage":{"prompt_tokens":1,"x":"\0"}}'), error="usage_garbled"),
    Answer("not ASCII in usage", data('{"usage":{"x":"\u00e9"}}'), error="usage_garbled"),
    Answer(
        "no UTF-8 anywhere",
        b"data: \xff\xfe\0\n\n\0\xff\n" + SHORT,
        _SHORT_USAGE,
        (7, 1, 8),
        events=1,
    ),
    Answer("closed more than opened", data("}}]]", "]}", _SHORT_EXTRA), _SHORT_USAGE, (7, 1, 8)),
    Answer(
        "nested deeply",
        data('{"a":' + "[" * 3_000 + "]" * 3_000 + f',"usage":{_SHORT_USAGE}}}'),
        _SHORT_USAGE,
        (7, 1, 8),
    ),
    Answer(
        "backslashes",
        data('{"a":"' + "\\" * 20_000 + f'","usage":{_SHORT_USAGE}}}'),
        _SHORT_USAGE,
        (7, 1, 8),
    ),
    Answer(
        "5 MB in an event",
        data(
            f'{{"type":"response.completed","response":{{"a":"{_BIG_TEXT}",'
            f'"usage":{_SHORT_USAGE},"b":"{_BIG_TEXT}"}}}}',
            _SHORT_WORD,
        ),
        _SHORT_USAGE,
        (7, 1, 8),
        events=1,
    ),
    Answer(
        "a long event in lines of all kinds",
        b'event: x\r\ndata: {"delta":{"a":"' + b"x" * 17_000 + b'"},\r\nid: {"usage":{"b":2}}\r\n'
        b'data:"usage":\r\ndata:{"prompt_tokens":5}\r\n: {\r\ndata}\r\ndata:}\r\n\r\n'
        + data(_SHORT_WORD)
        * 1_000,
        '{"prompt_tokens":5}',
        (5, 0, 5),
        events=1_001,
    ),
    Answer(
        "a long event, and its end is the end",
        b'data: {"a":"' + b"x" * 17_000 + b'","usage":{"prompt_tokens":5}}\n',
        '{"prompt_tokens":5}',
        (5, 0, 5),
    ),
    _json(
        "JSON, more brackets than may be",
        "[" * (HOPS_MAX + 1) + f'{{"usage":{_SHORT_USAGE}}}',
        error="too_complex",
    ),
    Answer(
        "more brackets than may be, in an event",
        data('{"usage":' + "[" * (HOPS_MAX + 1), _SHORT_EXTRA, _SHORT_WORD),
        events=1,
        error="too_complex",
    ),
)

ANSWERS = (*_OPENAI, *_RESPONSES, *_ANTHROPIC, *_WHOLE, *_FRAMING, *_HOSTILE)
