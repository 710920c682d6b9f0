"""The comparison with others runs as a whole, as far as nothing has to be built."""

import json
import subprocess
import sys


def test_ours_is_compared_with_grpc_aio() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.peers", "--brief"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    told = json.loads(done.stdout.splitlines()[-1])

    assert 0.01 < told["ours_over_grpc_aio_noop"] < 100
    assert 0.01 < told["transport_over_grpc_aio_noop"] < 1
    assert told["added_p50_ms_ours"] > 0
    assert told["ours_over_cpp_noop"] is None
    assert "| tonic doing nothing | not asked for |" in done.stdout
