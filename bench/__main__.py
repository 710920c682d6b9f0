"""All of it.

    make bench

Machines are noisy: quote ratios, and figures only beside others of the same run.
"""

from bench import counting, first_event, stages, through_envoy

counting.main()
stages.main()
through_envoy.main()
first_event.main()
