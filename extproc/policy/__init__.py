"""What we decide: who asks, how hard it is, which tier serves it, what it may cost.

Pure, total functions over frozen settings. Each module owns the section of the settings file
that it gives a meaning to, so a new rule has one room.
"""
