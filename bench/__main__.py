"""All of it but the comparison with other servers, which is `make bench-peers`.

    make bench        (twenty minutes; each has a target of its own)

Machines are noisy: quote ratios, and figures only beside others of the same run.
"""

import bench.counting
import bench.micro
import bench.overload
import bench.scale
import bench.size
import bench.sse

bench.counting.main()
bench.micro.main()
bench.size.main()
bench.sse.main()
bench.scale.main()
bench.overload.main()
