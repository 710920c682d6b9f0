"""Several processes on one port, one ledger and one admin address: a supervisor and its workers.

1.  The supervisor serves nobody but the admin's readers. It starts workers, starts them again, and
    ends with them; it never touches the ledger.
2.  A worker is a whole service, and to the ledger a replica of its own. It takes connections of the
    one port by SO_REUSEPORT.
3.  Each worker and the supervisor share a pair of sockets, whose end is the other's end: a worker
    whose supervisor is gone drains and ends, whatever ended it.
"""
