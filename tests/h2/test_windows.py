"""RFC 9113 §5.2 and §6.9: flow control, both ways."""

import pytest
from hyperframe.frame import DataFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from extproc.server.h2.limits import Held, Limits
from tests.h2.peer import Peer, Silent, brief, message

WINDOW = 4


def update(stream_id: int, increment: int) -> WindowUpdateFrame:
    return WindowUpdateFrame(stream_id, window_increment=increment)


def test_an_answer_waits_for_the_window_of_its_stream() -> None:
    peer = Peer(settings={WINDOW: 10})
    peer.open(1)

    first = peer.data(1, message(b"x" * 20), "END_STREAM")
    second = peer.send(update(1, 14))
    third = peer.send(update(1, 1))

    assert brief(first) == ["headers 1", "data 1 10"]
    assert brief(second) == ["data 1 14"]
    assert brief(third) == ["data 1 1", "headers 1 end"]
    assert peer.connection.queued == 0
    assert peer.connection.calls == {}
    assert b"".join(frame.data for frame in (first[1], second[0], third[0])) == message(b"x" * 20)


def test_answers_wait_for_the_window_of_the_connection() -> None:
    peer = Peer()
    for stream_id in (1, 3, 5):
        peer.open(stream_id)
    peer.data(1, message(b"x" * 65_000))  # more than a frame
    assert peer.connection.credit == 65_535 - 65_005

    second = peer.data(3, message(b"y" * 595), "END_STREAM")
    third = peer.data(5, message(b"z"), "END_STREAM")
    after = peer.send(update(0, 100))

    assert brief(second) == ["headers 3", "data 3 530"]
    assert brief(third) == ["headers 5"]
    assert brief(after) == ["data 3 70", "headers 3 end", "data 5 6", "headers 5 end"]
    assert peer.connection.credit == 24
    assert peer.connection.waiting == {}


def test_a_smaller_initial_window_leaves_less_than_nothing() -> None:
    peer = Peer(settings={WINDOW: 50})
    peer.open(1)
    peer.data(1, message(b"x" * 35))

    assert brief(peer.send(SettingsFrame(0, settings={WINDOW: 20}))) == ["settings ack"]
    assert peer.connection.calls[1].credit == -20
    assert brief(peer.data(1, message(b"y"))) == []
    assert brief(peer.send(update(1, 20))) == []
    assert brief(peer.send(update(1, 1))) == ["data 1 1"]


def test_a_larger_initial_window_frees_what_waits() -> None:
    peer = Peer(settings={WINDOW: 0})
    peer.open(1)
    peer.data(1, message(b"x"), "END_STREAM")

    freed = peer.send(SettingsFrame(0, settings={WINDOW: 1}))
    rest = peer.send(SettingsFrame(0, settings={WINDOW: 100}))

    assert brief(freed) == ["settings ack", "data 1 1"]
    assert brief(rest) == ["settings ack", "data 1 5", "headers 1 end"]


def test_an_initial_window_that_makes_another_too_large_breaks_the_connection() -> None:
    peer = Peer(method=Silent)
    peer.open(1)
    peer.send(update(1, (1 << 31) - 1 - 65_535))

    assert brief(peer.send(SettingsFrame(0, settings={WINDOW: 65_536}))) == ["goaway 1 3"]


def test_settings_count_by_the_last_of_each_name() -> None:
    peer = Peer()
    payload = b"\0\4\0\0\0\0" * 2000 + b"\0\4\0\0\0\7"

    peer.raw(len(payload).to_bytes(3) + b"\4\0\0\0\0\0" + payload)

    assert peer.connection.initial_credit == 7


def test_the_windows_that_we_give_are_filled_again_once_half_is_used() -> None:
    peer = Peer(Limits(stream_window=100_000, connection_window=150_000), method=Silent)
    peer.open(1)
    kilo = message(b"x" * 9_995)

    answers = [brief(peer.data(1, kilo)) for _ in range(8)]

    updates = [text for found in answers for text in found]
    assert updates == ["window 1 60000", "window 0 80000"]
    assert peer.connection.calls[1].window == 80_000
    assert peer.connection.window == 150_000


def test_padding_counts_as_data() -> None:
    peer = Peer(Limits(stream_window=70_000), method=Silent)
    peer.open(1)

    for _ in range(100):
        peer.send(DataFrame(1, b"", pad_length=255, flags=["PADDED"]))

    assert peer.connection.calls[1].window == 70_000 - 100 * 256


@pytest.mark.parametrize("payload", [b"x" * 1000, message(b"x" * 995)])
def test_more_than_the_window_of_a_stream_is_an_error_of_the_stream(payload: bytes) -> None:
    peer = Peer(Limits(stream_window=70_000), method=Silent)
    peer.open(1)
    peer.handlers[0].call.pause()

    answers = [text for _ in range(71) for text in brief(peer.data(1, payload))]

    assert answers == ["rst 1 3"]
    assert peer.handlers[0].heard[-1] == "cancel"
    assert peer.connection.held.bytes == 0


def test_who_pauses_makes_its_peer_wait_and_no_other() -> None:
    peer = Peer(Limits(stream_window=70_000), method=Silent)
    peer.open(1)
    peer.open(3)
    handler = peer.handlers[0]
    part = message(b"x" * 9_995)

    peer.data(1, message(b"pause"))
    answers = [brief(peer.data(1, part)) for _ in range(6)]
    others = [brief(peer.data(3, part)) for _ in range(6)]

    assert answers == [[]] * 6
    assert handler.heard == [b"pause"]
    assert peer.connection.held.bytes == 60_000
    assert [text for found in others for text in found] == ["window 3 40000"]

    handler.call.resume()

    assert handler.heard == [b"pause", *[part[5:]] * 6]
    assert brief(peer.flush()) == ["window 1 60010"]
    assert peer.connection.held.bytes == 0


class Bouncing(Silent):
    """Asks for more while it is being told."""

    def on_message(self, message: bytes) -> None:
        super().on_message(message)
        self.call.pause()
        self.call.resume()


def test_who_resumes_while_being_told_hears_everything_once() -> None:
    peer = Peer(method=Bouncing)
    peer.open(1)

    peer.data(1, b"".join(message(b"%d" % number) for number in range(50)), "END_STREAM")

    assert peer.handlers[0].heard == [*(b"%d" % number for number in range(50)), "end"]


def test_who_pauses_hears_of_the_end_afterwards_and_once() -> None:
    peer = Peer(method=Silent)
    peer.open(1)
    handler = peer.handlers[0]

    peer.data(1, message(b"pause"))
    peer.data(1, message(b"one") + message(b"pause") + message(b"two"), "END_STREAM")
    assert handler.heard == [b"pause"]
    handler.call.resume()
    assert handler.heard == [b"pause", b"one", b"pause"]
    handler.call.resume()
    handler.call.pause()
    handler.call.resume()

    assert handler.heard == [b"pause", b"one", b"pause", b"two", "end"]


def test_a_stream_that_is_reset_frees_what_it_queued_and_held() -> None:
    held = Held()
    peer = Peer(settings={WINDOW: 0}, held=held)
    peer.open(1)
    peer.data(1, message(b"x" * 100) + b"\0")
    assert (peer.connection.queued, held.bytes) == (105, 1)

    peer.send(RstStreamFrame(1))

    assert (peer.connection.queued, held.bytes, peer.connection.queues) == (0, 0, {})
    assert peer.handlers[0].heard[-1] == "cancel"
    assert peer.send(update(0, 100), SettingsFrame(0, settings={WINDOW: 10})) != []


def test_an_answer_that_nobody_takes_is_given_up() -> None:
    peer = Peer(Limits(stall_seconds=5), settings={WINDOW: 0})
    peer.open(1)
    peer.data(1, message(b"x"), "END_STREAM")

    assert brief(peer.tick(4.9)) == []
    assert brief(peer.send(update(1, 1))) == ["ping", "data 1 1"]
    assert brief(peer.tick(4.9)) == []
    assert brief(peer.tick(0.2)) == ["rst 1 8"]
    assert peer.connection.calls == {}
