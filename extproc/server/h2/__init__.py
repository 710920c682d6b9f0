"""gRPC over HTTP/2, as much of it as a server needs that Envoy and standard clients call.

`Connection` is without I/O: bytes in, calls and bytes out. `shell` puts it on asyncio's sockets.

    connection = Connection(methods, limits, clock=..., wake=..., on_bug=...)
    transport.write(connection.greeting())
    transport.write(connection.receive(data))   # as bytes come; all answers in one piece
    transport.write(connection.tick())          # a few times a second
    transport.write(connection.flush())         # after `wake`: somebody answered later
    connection.leave()                          # then flush: GOAWAY, and calls may end
    connection.lost()                           # the socket is gone

`methods` has one entry a path: called with a `Call`, it returns the `Handler` of that call.

    class Echo:
        def __init__(self, call): self.call = call
        def on_message(self, message): self.call.send(message)
        def on_end(self): self.call.finish()     # or finish(5, "not found")
        def on_cancel(self): ...                 # nobody listens any more

    methods = {b"/demo.Echo/Echo": Echo}

A handler runs within `receive`. It may answer there and then, which costs nothing more, or later.
`call.pause()` and `call.resume()` hold its messages back, and by flow control the peer. What a
handler raises ends its call with INTERNAL, and no other.

Rules that hold throughout:

1.  A peer's fault ends its stream or its connection, never more, and raises nothing.
2.  Whatever a peer can make us keep or do has a limit in `limits`, with its error code.
3.  We encode headers without any table, so an answer is the same bytes at any time.
4.  A header block that was decoded without touching the table is remembered by its bytes, until
    the table is touched.
5.  An exchange that is cut off ends with an error status: Envoy takes a clean end for consent.

Layers, each a class that the next one extends: `Link` (what calls share in order to send),
`Controls` (settings, windows, signs of life, the end), `Opening` (header blocks), `Connection`
(bytes, messages). A `Call` is an `Inbound`, the half that receives, and the half that sends.
`decision`, `health`, `asynchronous` and `lifecycle` are the services on top.

Left out of RFC 9113: server push, and HTTP beyond gRPC. Priorities are read and ignored (§5.3).
"""
