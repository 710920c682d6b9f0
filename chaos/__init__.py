"""Proof of the books: everything is killed, stopped and ended, and nothing is lost.

    make chaos          .venv/bin/python -m chaos [--seed N]

Models keep books of what they say they used, and clients know what they got: what tenants owe is
told by these two alone (`dues`), and held to what a service that starts with the ledger's file
would find in it (`findings`). The last line of the output is one line of JSON:

`requests`, `refused_while_away`, `cut_by_a_kill`, `reached_models`, `completed`
    What was sent; what Envoy refused since nobody could decide; answers that it broke off since
    the service was killed after it had decided and before it had ended its stream; what came to
    a model; and whose answer a client has whole.
`lost`, `charged_twice`, `differences`, `logs_dropped`, `still_held`
    Completed requests that are not settled; requests charged beyond what is owed; sums of tenants
    that are not what is owed; records that Envoy gave up; what is held when all is over.
`calls_repeated`, `expired`
    Calls that Envoy made again; reservations that were charged what they expected, since nobody
    said what became of them: Envoy gave up waiting for a decision that had been taken.

and the same for each case: `unacknowledged` (killed between commit and acknowledgement),
`cut_off` (records can't be delivered, and come in large batches), `forgotten` (restarted while an
answer was written), `drained` (Envoy drained and ended), `envoy_killed`, and `old_way` (Envoy's
gRPC access log, which must lose something: else this harness can't see losses).

Then the same for three replicas and the Valkey that they share (`replicated_…`): replicas are
killed in the middle of streams; Valkey is killed, comes back empty or as it was some calls ago,
hangs for five seconds, and is cut off. Where it has forgotten something, the audit lines of all
replicas are replayed while they go on. And here more can be wrong:

`overshoot`
    Answers that models gave beyond the limit of a budget of requests that is used up in each act.
    Where replicas were without Valkey for a while (their logs say so), their shares of the limit
    may come on top: each of them can't know what the others do meanwhile.
`beyond_while_away`
    What came on top: few, since a replica takes more from its share than it knows to be used.
`phantom_refusals`
    What tenants can't have of what they have left, ten seconds after the last act.
`replicated_never_charged_again`, `replicated_still_leased`, `replicated_replicas_unasked`
    What counts as used though nobody is charged for it; what is leased when all is over; replicas
    that decide nothing any more.
`replicated_cut`
    `cut`, or why Valkey was not: that takes a network of its own, which root alone can make.
"""
