"""All of it but the comparison with other servers, which is `make bench-peers`.

    make bench

Machines are noisy: quote ratios, and figures only beside others of the same run.
"""

import bench.counting
import bench.first_event
import bench.micro
import bench.through_envoy
import bench.untouched

bench.counting.main()
bench.micro.main()
bench.through_envoy.main()
bench.first_event.main()
bench.untouched.main()
