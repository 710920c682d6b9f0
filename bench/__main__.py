"""All of it but the comparison with other servers, which is `make bench-peers`.

    make bench

Machines are noisy: quote ratios, and figures only beside others of the same run.
"""

import bench.counting
import bench.first_event
import bench.stages
import bench.untouched

bench.counting.main()
bench.stages.main()
bench.first_event.main()
bench.untouched.main()
